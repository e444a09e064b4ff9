"""Checks the numbers on an invoice: VAT numbers worldwide, IBANs, and both at once (library: python-stdnum 2).

Also shows configuration, logging and health by hotswap_plugin (docs/plugins.md).
"""

from typing import Any

from stdnum import get_cc_module, iban
from stdnum.eu import vat
from stdnum.exceptions import ValidationError

from hotswap_plugin import Context, Unhealthy, get_logger

log = get_logger("invoice-check")


class InvoiceCheck:
    def check_vat(self, parameters: dict[str, Any], context: Context) -> dict[str, Any]:
        """Of the `country` that the call names, else of the tenant's own (configuration), else of the EU by the prefix."""
        country = parameters.get("country") or context.config["country"]
        module = get_cc_module(country.lower(), "vat") if country else vat
        if module is None:
            return {"valid": False, "reason": f"{country} has no VAT numbers that can be checked."}
        return _checked(module, parameters["number"])

    def check_iban(self, parameters: dict[str, Any], context: Context) -> dict[str, Any]:
        result = _checked(iban, parameters["number"])
        return {**result, "formatted": iban.format(result["number"])} if result["valid"] else result

    def check_invoice(self, parameters: dict[str, Any], context: Context) -> dict[str, Any]:
        """Everything on one invoice that carries a check digit."""
        checks = {
            "seller": self.check_vat({"number": parameters["sellerVat"]}, context),
            "buyer": self.check_vat({"number": parameters["buyerVat"]}, context),
            "iban": self.check_iban({"number": parameters["iban"]}, context),
        }
        wrong = [name for name, check in checks.items() if not check["valid"]]
        if wrong:  # which, and not what: the numbers are somebody's
            log.info("an invoice was rejected for its %s", ", ".join(wrong))
        return {"valid": not wrong, "checks": checks}

    def health(self) -> None:
        if not iban.is_valid("GB82WEST12345698765432"):
            raise Unhealthy("a known good IBAN is found wrong: the library's tables are broken")


def _checked(kind: Any, number: str) -> dict[str, Any]:
    try:
        return {"valid": True, "number": kind.validate(number)}
    except ValidationError as fault:
        return {"valid": False, "reason": str(fault)}
