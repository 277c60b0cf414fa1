"""Turns a program and its contract's form into jobs: which driver runs it, with which files. Pure."""

from typing import Annotated, Final, assert_never

import msgspec
from msgspec import Meta

from lumina.events.contract import Form, Language, Limits
from lumina.events.values import Canonical, Identifier, Text, Value
from lumina.sandbox.port import DRIVERS, TEMPORARY, File, Job
from lumina.sandbox.reports import exported_timeline

ANY_FUNCTION: Final = "-"
"""What the drivers take for the name of a function that the request does not name."""
CALLS_FILE: Final = ".calls.json"
TIMELINE_FILE: Final = ".timeline.json"
PAGES_FILE: Final = ".pages.json"
"""Names that no file of a request can have, since those do not start with a dot."""
CERTIFICATE: Final = f"{TEMPORARY}/pages.pem"
PROXY_PORT: Final = 8118


class Call(Value, frozen=True, kw_only=True):
    """Arguments of one call, as a JSON array, and how often it is made."""

    arguments: Text
    repeat: Annotated[int, Meta(ge=1, le=100)] = 1


class Program(Canonical, frozen=True, kw_only=True):
    """A program with everything that may enter the sandbox, and nothing of what it should answer.

    Attributes:
        entry: For FUNCTION, the function's name; None for the one that there is.
        calls: For FUNCTION. Without any, loading the program is all that is tried.
        files: Beside it in its folder.
    """

    code: str
    language: Language
    form: Form
    limits: Limits
    entry: Identifier | None = None
    calls: tuple[Call, ...] = ()
    files: tuple[File, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page that was fetched outside, before the sandbox started.

    Attributes:
        url: As it was asked for.
        status: HTTP status; 0 when there was no answer.
        media_type: The Content-Type of the answer.
        body: At most `fetch.PAGE_BYTES_MAX` bytes.
        problem: Why there is no page, empty when there is one.
    """

    url: str
    status: int
    media_type: str = ""
    body: bytes = b""
    problem: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What `harness/serve_pages.py` reads: the pages, and a certificate for those that are asked for by https."""

    pages: tuple[Page, ...]
    port: int = PROXY_PORT
    certificate: str = ""
    key: str = ""


def main_file(language: Language) -> str:
    """Return the name of the program inside the sandbox."""
    return "main.py" if language is Language.PYTHON else "main.js"


def run_job(program: Program, *, served: Served | None = None) -> Job:
    """Return the job that runs `program`; a timeline is only exported by it, see `play_job`."""
    name = main_file(program.language)
    files = [file for file in program.files if file.name != name]
    files.append(File(name=name, content=program.code.encode()))
    is_python = program.language is Language.PYTHON
    runtime = "python" if is_python else "node"
    command: tuple[str, ...]
    reports = True
    match program.form:
        case Form.FUNCTION:
            calls = [{"arguments": call.arguments, "repeat": call.repeat} for call in program.calls]
            files.append(File(name=CALLS_FILE, content=msgspec.json.encode(calls)))
            driver = "call_python.py" if is_python else "call_node.cjs"
            command = (runtime, f"{DRIVERS}/harness/{driver}", program.entry or ANY_FUNCTION, CALLS_FILE)
        case Form.TIMELINE:
            command = (runtime, f"{DRIVERS}/harness/export_timeline.cjs")
        case Form.ROWS | Form.FILE | Form.SCRIPT:
            command, reports = (runtime, name), False
        case _:
            assert_never(program.form)
    environment: tuple[tuple[str, str], ...] = ()
    if served is not None:
        files.append(File(name=PAGES_FILE, content=msgspec.json.encode(served)))
        command = ("python", "-S", f"{DRIVERS}/harness/serve_pages.py", PAGES_FILE, *command)
        environment, reports = proxy_environment(served), True
    return Job(
        command=command,
        language=program.language,
        files=tuple(files),
        limits=program.limits,
        reports=reports,
        collects=program.form not in {Form.FUNCTION, Form.TIMELINE},
        environment=environment,
    )


def proxy_environment(served: Served) -> tuple[tuple[str, str], ...]:
    """Return the variables that lead all requests of a program to the server of recorded pages."""
    proxy = f"http://127.0.0.1:{served.port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    variables = [(name, proxy) for name in names] + [("NO_PROXY", ""), ("no_proxy", "")]
    if served.certificate:
        variables += [(name, CERTIFICATE) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")]
    return tuple(variables)


def play_job(program: Program, *, results: bytes) -> Job | None:
    """Return the job that plays the timeline which the first one exported; None when it exported none."""
    if program.form is not Form.TIMELINE:
        return None
    timeline = exported_timeline(results)
    if timeline is None:
        return None
    return Job(
        command=("node", f"{DRIVERS}/harness/play_timeline.cjs"),
        language=Language.JAVASCRIPT,
        files=(File(name=TIMELINE_FILE, content=timeline),),
        limits=program.limits,
        reports=True,
    )
