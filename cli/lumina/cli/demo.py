"""`lumina demo` and `lumina examples`: what Lumina can do on a machine with nothing but itself."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule
from rich.text import Text

from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, work
from lumina.cli.demo_stage import DemoRequest, demo_requests, newspaper
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.place import Place, bus
from lumina.cli.proof import print_report, verified
from lumina.cli.run import Wishes, submit_and_follow
from lumina.cli.screen import Screen
from lumina.cli.session import Plan, system
from lumina.cli.tasks import Task
from lumina.models.demo.examples import shapes
from lumina.replay.report import Status


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for code and files.")] = Path(
        "lumina-out/demo"
    ),
    home: HomeOption = None,
) -> None:
    """Do five real requests end to end, then verify every run from the log."""

    async def job(found: Home) -> Exit:
        worst = Exit.OK
        with newspaper() as host:
            requests = demo_requests(host)
            screen = Screen(console=err())
            with screen.shown():
                async with system(found, plan=Plan(), say=screen.starting) as place:
                    for number, wanted in enumerate(requests, start=1):
                        out().print(Rule(f"{number}/{len(requests)}  {wanted.title}", align="left"))
                        code = await _one(place, wanted=wanted, output=output / str(number))
                        worst = worst if code is Exit.OK else code
        return worst

    raise typer.Exit(work(job, home=home))


async def _one(place: Place, *, wanted: DemoRequest, output: Path) -> Exit:
    """Do one request of the demo and verify its run."""
    out().print(Text(wanted.request, style="italic"), soft_wrap=True)
    task = Task(request=wanted.request, allow_hosts=list(wanted.hosts))
    wishes = Wishes(task=task, base=Path(), json=False, detach=False, output=output)
    screen = Screen(console=err())
    with screen.shown():
        async with bus(place, role="client") as connected:
            code, run = await submit_and_follow(
                place, connected, wishes=wishes, request=wanted.request, files=wanted.files, screen=screen
            )
            report = await verified(connected, run=run)
    print_report(report)
    return code if report.status is Status.OK else Exit(report.status.exit_code)


@app.command()
def examples(json_lines: JsonOption = False) -> None:
    """List requests that the embedded demo model can do, ready to be copied."""
    if json_lines:
        for shape in shapes():
            print_json(json.dumps({"kind": shape.kind, "about": shape.description, "request": shape.example}).encode())
        return
    console = out()
    console.print("The embedded demo model fills shapes like these with your own names, numbers, texts and addresses.")
    console.print("For anything else, point at a real model: --model FILE.gguf or --model-url URL.\n")
    for shape in shapes():
        console.print(Text(f"{shape.kind}: {shape.description}", style="bold"))
        console.print(Text(f'  lumina run "{shape.example}"'), soft_wrap=True)
