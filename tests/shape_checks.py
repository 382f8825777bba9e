"""The checker behind jaxtyping's annotations in tests."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype that takes an int where a float is asked for, as PEP 484 does."""
