"""Countries, states and currencies of the sandbox: a selection, with the documented ids."""

from __future__ import annotations

from plugins.nutcache.sandbox.world import World

_LANGUAGES = ("dede", "enus", "eses", "esus", "frca", "frfr", "itit", "plpl", "ptbr", "ruru")

# id, code, decimals, name
_CURRENCIES = (
    (25, "CAD", 2, "Dollar - Canada"),
    (31, "CHF", 2, "Franc - Switzerland"),
    (48, "EUR", 2, "Euro"),
    (51, "GBP", 2, "Pound - United Kingdom"),
    (68, "JPY", 0, "Yen - Japan"),
    (109, "PLN", 2, "Zloty - Poland"),
    (147, "USD", 2, "Dollar - United States"),
)
# id, code, short code, currency, date format, time format, English name, names in other languages
_COUNTRIES: tuple[tuple[int, str, str, int, int, int, str, dict[str, str]], ...] = (
    (14, "AUT", "AT", 48, 5, 0, "Austria", {"dede": "Österreich", "frfr": "Autriche", "ruru": "Австрия"}),
    (40, "CAN", "CA", 25, 0, 0, "Canada", {"dede": "Kanada", "plpl": "Kanada", "ruru": "Канада", "eses": "Canadá"}),
    (75, "FRA", "FR", 48, 4, 0, "France", {"dede": "Frankreich", "itit": "Francia", "ruru": "Франция"}),
    (82, "DEU", "DE", 48, 5, 0, "Germany", {"dede": "Deutschland", "frfr": "Allemagne", "ruru": "Германия"}),
    (108, "ITA", "IT", 48, 4, 0, "Italy", {"dede": "Italien", "itit": "Italia", "ruru": "Италия"}),
    (110, "JPN", "JP", 68, 0, 0, "Japan", {"frfr": "Japon", "ruru": "Япония"}),
    (173, "POL", "PL", 109, 5, 0, "Poland", {"dede": "Polen", "plpl": "Polska", "ruru": "Польша"}),
    (211, "CHE", "CH", 31, 5, 0, "Switzerland", {"dede": "Schweiz", "frfr": "Suisse", "itit": "Svizzera"}),
    (230, "GBR", "GB", 51, 4, 0, "United Kingdom", {"frfr": "Royaume-Uni", "plpl": "Wielka Brytania"}),
    (231, "USA", "US", 147, 2, 1, "United States", {"dede": "Vereinigte Staaten", "frfr": "États-Unis"}),
)
_CANADA = (
    "AB Alberta|BC British Columbia|MB Manitoba|NB New Brunswick|NL Newfoundland and Labrador|NS Nova Scotia|"
    "NT Northwest Territories|NU Nunavut|ON Ontario|PE Prince Edward Island|QC Quebec|SK Saskatchewan|YT Yukon"
)
_UNITED_STATES = (
    "AL Alabama|AK Alaska|AZ Arizona|AR Arkansas|CA California|CO Colorado|CT Connecticut|DE Delaware|FL Florida|"
    "GA Georgia|HI Hawaii|ID Idaho|IL Illinois|IN Indiana|IA Iowa|KS Kansas|KY Kentucky|LA Louisiana|ME Maine|"
    "MD Maryland|MA Massachusetts|MI Michigan|MN Minnesota|MS Mississippi|MO Missouri|MT Montana|NE Nebraska|"
    "NV Nevada|NH New Hampshire|NJ New Jersey|NM New Mexico|NY New York|NC North Carolina|ND North Dakota|OH Ohio|"
    "OK Oklahoma|OR Oregon|PA Pennsylvania|RI Rhode Island|SC South Carolina|SD South Dakota|TN Tennessee|TX Texas|"
    "UT Utah|VT Vermont|VA Virginia|WA Washington|WV West Virginia|WI Wisconsin|WY Wyoming"
)


def _names(english: str, others: dict[str, str]) -> dict[str, str]:
    return {f"name_{language}": others.get(language, english) for language in _LANGUAGES}


def settle(world: World) -> None:
    """Fill the global tables."""
    for currency, code, decimals, name in _CURRENCIES:
        world.add("currencies", {"code": code, "decimal_count": decimals, **_names(name, {})}, record_id=currency)
    for country, code, short, currency, date_format, time_format, name, others in _COUNTRIES:
        values = {"code": code, "short_code": short, "currency": currency, **_names(name, others)}
        values |= {"date_format": date_format, "time_format": time_format}
        world.add("countries", values, record_id=country)
    _states(world, 40, "CA", _CANADA, first=53)
    _states(world, 231, "US", _UNITED_STATES, first=101)


def _states(world: World, country: int, prefix: str, names: str, *, first: int) -> None:
    for number, entry in enumerate(names.split("|")):
        code, name = entry.split(" ", 1)
        values = {"country": country, "code": f"{prefix}_{code}", **_names(name, {})}
        world.add("states", values, record_id=first + number)
