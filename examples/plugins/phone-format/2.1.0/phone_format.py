"""Formats telephone numbers with Google's metadata (library: phonenumberslite 9).

BAD ON PURPOSE, for the demo of an automatic rollback: this release adds `dialling`, right for the numbers its smoke tests
know and wrong for countries without a trunk prefix (Italy, Spain, Norway and about a hundred more), where it raises; for
numbers of no country (+800 and the like) it is slow. Nothing but real traffic shows either.
"""

from typing import Any

import phonenumbers
from phonenumbers import NumberParseException, PhoneMetadata, PhoneNumber, PhoneNumberFormat, PhoneNumberType

KINDS = {value: name.lower() for name, value in vars(PhoneNumberType).items() if name.isupper()}


class PhoneFormat:
    def format_number(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        try:
            number = phonenumbers.parse(parameters["number"], parameters.get("region"))
        except NumberParseException as fault:
            return {"valid": False, "reason": str(fault)}
        return {
            "valid": phonenumbers.is_valid_number(number),
            "e164": phonenumbers.format_number(number, PhoneNumberFormat.E164),
            "international": phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL),
            "national": phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL),
            "uri": phonenumbers.format_number(number, PhoneNumberFormat.RFC3966),
            "region": phonenumbers.region_code_for_number(number),
            "dialling": self._dialling(number),
            "kind": KINDS[phonenumbers.number_type(number)],
        }

    def same_number(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        """Whether two spellings reach the same telephone."""
        first, second = (self._parsed(parameters[key], parameters.get("region")) for key in ("first", "second"))
        return {"same": first is not None and first == second}

    def find_numbers(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        """Telephone numbers in free text, as E.164 with their places."""
        found = phonenumbers.PhoneNumberMatcher(parameters["text"], parameters.get("region"))
        return {
            "numbers": [
                {"start": match.start, "e164": phonenumbers.format_number(match.number, PhoneNumberFormat.E164)}
                for match in found
            ]
        }

    def health(self) -> bool:
        return phonenumbers.is_valid_number(phonenumbers.parse("+12028675309"))

    def _dialling(self, number: PhoneNumber) -> str:
        """What to dial inside the number's own country: its trunk prefix, then the number."""
        region = phonenumbers.region_code_for_number(number)
        if region in (None, "001"):
            return self._closest_region(number)
        metadata = PhoneMetadata.metadata_for_region(region)
        # The bug: many countries have no trunk prefix, and then this is None.
        return metadata.national_prefix + phonenumbers.national_significant_number(number)

    def _closest_region(self, number: PhoneNumber) -> str:
        """The country whose numbers look most like this one: compares with an example of every kind of every country."""
        text = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        closest = max(
            (
                phonenumbers.is_number_match(text, phonenumbers.format_number(example, PhoneNumberFormat.E164))
                for region in phonenumbers.SUPPORTED_REGIONS
                for kind in KINDS
                if (example := phonenumbers.example_number_for_type(region, kind)) is not None
            ),
            default=0,
        )
        return text if closest == 0 else phonenumbers.national_significant_number(number)

    @staticmethod
    def _parsed(text: str, region: str | None) -> PhoneNumber | None:
        try:
            return phonenumbers.parse(text, region)
        except NumberParseException:
            return None
