"""`lumina specialists`, `schema` and `credentials`: what there is, for people and for other programs."""

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from lumina.agents.specialist_folders import load_folders
from lumina.bus.address import find_running
from lumina.bus.credentials import consumer_role
from lumina.bus.server import create_consumer_credentials
from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, table_out, work
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.schema import schema_of, schemas

credentials_app = typer.Typer(help="Credentials for programs outside Lumina.", no_args_is_help=True)
app.add_typer(credentials_app, name="credentials")


@app.command()
def specialists(json_lines: JsonOption = False, home: HomeOption = None) -> None:
    """List the specialists: the built-in ones and the files in the data folder's `specialists`."""

    async def job(found: Home) -> Exit:
        found.ensure()
        files = load_folders([found.specialists])
        if json_lines:
            for file in files:
                row = {"name": file.name, "origin": file.origin, "problems": file.problems}
                if file.definition is not None:
                    row |= {"kind": file.definition.kind, "language": file.definition.language.value}
                print_json(msgspec.json.encode(row))
            return Exit.OK
        table = Table(box=None, pad_edge=False)
        for heading in ("NAME", "KIND", "LANGUAGE", "SANDBOX", "VALIDATORS", "FROM"):
            table.add_column(heading)
        for file in files:
            if file.definition is not None:
                one = file.definition
                table.add_row(one.name, one.kind, one.language.value, one.tier, ", ".join(one.tools), file.origin)
        table_out(table)
        for file in files:
            for problem in file.problems:
                err().print(Text(f"{file.origin}: {problem}", style="yellow"), soft_wrap=True)
        out().print(Text(f"A TOML file in {found.specialists} is one more.", style="dim"), soft_wrap=True)
        return Exit.FAILED if any(file.problems for file in files) else Exit.OK

    raise typer.Exit(work(job, home=home))


@app.command()
def schema(
    event_type: Annotated[str | None, typer.Argument(help="For instance run.closed.v1; all if left out.")] = None,
) -> None:
    """Print the JSON Schema of one event type, or of all."""
    if event_type is None:
        print_json(msgspec.json.format(msgspec.json.encode(schemas(EVENT_TYPES.values())), indent=2))
        return
    if event_type not in EVENT_TYPES:
        err().print(
            f"lumina: there is no event {event_type!r}; there are: {', '.join(EVENT_TYPES)}",
            style="red",
            soft_wrap=True,
        )
        raise typer.Exit(Exit.USAGE)
    print_json(msgspec.json.format(msgspec.json.encode(schema_of(EVENT_TYPES[event_type])), indent=2))


class ConsumerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What an external program needs to connect."""

    url: str | None
    seed_file: str
    inbox_prefix: str


@credentials_app.command()
def consumer(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")] = "reader",
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make read-only credentials for a program outside Lumina, also while the system runs."""

    async def job(found: Home) -> Exit:
        found.ensure()
        try:
            path = await create_consumer_credentials(found.root, name=name)
        except ValueError as error:
            raise UsageProblem(str(error)) from error
        running = find_running(found.root)
        answer = ConsumerFile(
            url=running.url if running else None, seed_file=str(path), inbox_prefix=f"_INBOX_{consumer_role(name)}"
        )
        if json_lines:
            print_json(msgspec.json.encode(answer))
            return Exit.OK
        console = out()
        console.print(f"nkey seed:    {answer.seed_file}", markup=False, soft_wrap=True)
        console.print(f"inbox prefix: {answer.inbox_prefix}", markup=False)
        console.print(f"server:       {answer.url or 'not running; `lumina up` prints its address'}", markup=False)
        console.print("It may read the log and hear what is going on; it can change nothing. See examples/consumers/.")
        return Exit.OK

    raise typer.Exit(work(job, home=home))
