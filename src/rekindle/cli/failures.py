"""What a command says and returns when it cannot do its job: one sentence, and with --debug where that arose."""

import shutil
import sys
import traceback

from rekindle.errors import Busy, Unreadable, UserError, shorter
from rekindle.training.progress import wrapped

FAILED, BAD_INPUT, STOPPED = 1, 2, 130  # The last as shells count what a signal ended.


def tell(error: BaseException, debug: bool) -> int:
    """Print what went wrong on standard error.

    Args:
        error: What was raised; a closed pipe is none of these.
        debug: Show before the sentence where it arose, and what it arose from.

    Returns:
        The exit status.
    """
    if debug:
        _show_causes(error)
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("\nrekindle: stopped.", file=sys.stderr)
        return STOPPED
    told = f"rekindle: {sentence(error)}"
    print(wrapped(told, shutil.get_terminal_size().columns) if sys.stderr.isatty() else told, file=sys.stderr)
    return BAD_INPUT if isinstance(error, UserError) and not isinstance(error, Busy | Unreadable) else FAILED


def sentence(error: BaseException) -> str:
    """What went wrong in words for a person; an error that nobody foresaw is named, with how to report it.

    Returns:
        One sentence.
    """
    if isinstance(error, UserError):
        return str(error)
    kind, reason = type(error).__name__, shorter(" ".join(str(error).split()))
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return f"memory ran out ({reason or kind}); try a smaller --batch-size or --image-size, or more --grad-accum-steps."
    if isinstance(error, OSError):
        return reason or kind
    return (
        f"an error that was not foreseen, {kind}{f': {reason}' if reason else ''}; the same command with --debug shows where it arose. "
        "Please report it with what that prints and what rekindle --version says."
    )


def _show_causes(error: BaseException) -> None:
    """Let a traceback show also what a sentence was raised in the place of, all the way down."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__suppress_context__ = False
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
