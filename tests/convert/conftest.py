from tests.helpers.hub import hub  # noqa: F401
