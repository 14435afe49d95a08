"""What schemathesis needs to be told, for scripts/fuzz-api."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Leaves out headers that its HTTP client cannot send, on which it would give up."""
    for name, value in list((case.headers or {}).items()):
        try:
            str(value).encode("latin-1")
        except UnicodeEncodeError:
            del case.headers[name]
