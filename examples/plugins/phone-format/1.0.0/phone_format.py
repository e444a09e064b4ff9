"""Formats telephone numbers with Google's metadata (library: phonenumberslite 8)."""

from typing import Any

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType

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
            "region": phonenumbers.region_code_for_number(number),
            "kind": KINDS[phonenumbers.number_type(number)],
        }

    def same_number(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        """Whether two spellings reach the same telephone."""
        first, second = (self._parsed(parameters[key], parameters.get("region")) for key in ("first", "second"))
        return {"same": first is not None and first == second}

    def health(self) -> bool:
        return phonenumbers.is_valid_number(phonenumbers.parse("+12028675309"))

    @staticmethod
    def _parsed(text: str, region: str | None) -> PhoneNumber | None:
        try:
            return phonenumbers.parse(text, region)
        except NumberParseException:
            return None
