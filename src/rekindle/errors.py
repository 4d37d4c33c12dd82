"""The one exception that is meant for a person's eyes."""


class UserError(ValueError):
    """Bad input: one sentence that says what was found, what is allowed, and what to type instead.

    The command prints it alone, without a traceback, and exits with status 2.
    """
