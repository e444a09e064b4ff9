"""Checks the numbers on an invoice: VAT numbers of the EU and IBANs (library: python-stdnum 1)."""

from typing import Any

from stdnum import iban
from stdnum.eu import vat
from stdnum.exceptions import ValidationError


class InvoiceCheck:
    def check_vat(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        return _checked(vat, parameters["number"])

    def check_iban(self, parameters: dict[str, Any], context: Any) -> dict[str, Any]:
        result = _checked(iban, parameters["number"])
        return {**result, "formatted": iban.format(result["number"])} if result["valid"] else result

    def health(self) -> bool:
        return bool(iban.is_valid("GB82WEST12345698765432"))


def _checked(kind: Any, number: str) -> dict[str, Any]:
    try:
        return {"valid": True, "number": kind.validate(number)}
    except ValidationError as fault:
        return {"valid": False, "reason": str(fault)}
