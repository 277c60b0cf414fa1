"""The orchestrator as given, when, then: the main road, plans, refusals, and every way in which a run ends."""

from msgspec.structs import replace
from tests.agents.run_scene import (
    DEMO,
    LARGE,
    LAYERS,
    NEWS,
    NEWS_SECTION,
    NPC,
    ROCK,
    SMALL,
    Scene,
    blob,
    ended,
    failure,
    said,
    submitted,
)

from lumina.agents.orchestrator import Orchestrator
from lumina.events.contract import Case
from lumina.events.execution import ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationOutcome, GenerationRequested, PlanItem, Purpose
from lumina.events.ids import StreamId
from lumina.events.lease import LeaseGranted, LeaseRefused, Refusal
from lumina.events.run import Planner, RunCancelRequested, RunOptions, RunPlanned, RunStatus
from lumina.events.values import FileRef


def accept(scene: Scene, code: str = "code") -> None:
    """Take the step that is under way to its acceptance."""
    scene.answer(code)
    scene.validate()
    scene.execute()


def test_the_main_road() -> None:
    """A request is planned, asked, validated, executed, accepted, and the run is completed."""
    scene = Scene()
    assert said(scene.submit(submitted(ROCK))) == ["planned", "attempt_started", "requested"]
    assert said(scene.answer("the code")) == ["requested"]
    assert said(scene.validate()) == ["requested"]
    assert said(scene.execute()) == ["accepted", "closed"]
    assert ended(scene) == (RunStatus.COMPLETED, "accepted")
    assert scene.closed is not None
    result = scene.closed.results[0]
    assert (result.accepted, result.attempts, result.code) == (True, 1, blob("the code"))
    assert scene.closed.tokens == 50


def test_the_first_question_carries_all_that_a_specialist_needs() -> None:
    """Greedy, with a derived seed, the brief, the contract and the specialist's definition."""
    scene = Scene()
    scene.submit(submitted(ROCK))
    asked = scene.asked().event
    assert isinstance(asked, GenerationRequested)
    ask = asked.ask
    assert (ask.purpose, ask.step, ask.attempt, ask.model, ask.bare) == (Purpose.CODE, 1, 1, "demo", True)
    assert ask.sampling.temperature == 0.0
    assert ask.brief == ROCK
    assert ask.contract is not None
    assert ask.contract.parameters == ("playerChoice",)
    assert ask.specialist is not None
    assert ask.specialist.kind == "game"
    assert ask.sampling.tokens_max == 512, "half of what the model serves"


def test_deciding_a_record_again_adds_nothing() -> None:
    """When the answers to a record are folded, nothing is missing any more."""
    scene = Scene()
    scene.submit(submitted(ROCK))
    scene.answer()
    keeper = Orchestrator()
    for record in scene.records:
        assert keeper.decide(scene.state, record) == ()


def test_records_of_nodes_are_nobodys_run() -> None:
    """Only streams that begin with `r-` are runs."""
    scene = Scene()
    record = scene.submit(submitted(ROCK))[0]
    assert Orchestrator().shard(record) == "r-scene"
    assert Orchestrator().shard(replace(record, stream=StreamId("local"))) is None


def test_a_late_outcome_changes_nothing_but_the_count() -> None:
    """An answer to a question that is answered already is folded as late."""
    scene = Scene()
    scene.submit(submitted(ROCK))
    question = scene.asked()
    scene.answer("one")
    assert scene.answer("two", to=question) == ()
    assert scene.state.tokens == 100
    scene.validate()
    scene.execute()
    assert scene.closed is not None
    assert scene.closed.results[0].code == blob("one")


def test_nothing_follows_the_end() -> None:
    """Outcomes, cancels and timers after `run.closed` are met with silence."""
    scene = Scene()
    scene.submit(submitted(ROCK))
    question = scene.asked()
    accept(scene)
    assert scene.answer("late", to=question) == ()
    assert scene.hear(RunCancelRequested(reason="too late"), agent="client") == ()
    assert scene.timers() == {}


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """The sentence names what was asked for and what there is."""
    scene = Scene()
    assert said(scene.submit(submitted(ROCK, options=RunOptions(kind="poem")))) == ["closed"]
    status, reason = ended(scene)
    assert status is RunStatus.REFUSED
    assert reason.startswith("no specialist for the kind 'poem'; known kinds: animation, dialogue, function, game")


def test_a_run_without_models_is_refused() -> None:
    """It says how to name one."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=()))
    assert ended(scene) == (RunStatus.REFUSED, "no model is available; name one with --model or --model-url")


def test_free_text_is_refused_when_only_the_demo_model_is_there() -> None:
    """Honestly, in one sentence, without asking a model that would call anything one of its kinds."""
    scene = Scene()
    assert said(scene.submit(submitted("Write a poem about the sea."))) == ["closed"]
    status, reason = ended(scene)
    assert status is RunStatus.REFUSED
    assert "lumina examples" in reason
    assert "--model-url" in reason


def test_free_text_goes_to_the_general_specialist_of_a_real_model() -> None:
    """Its plan is asked for first; when that fails, the rules know somebody for everything."""
    scene = Scene()
    scene.submit(submitted("Print the first twenty lucky numbers.", models=(SMALL, DEMO)))
    scene.answer(outcome=GenerationOutcome.UNUSABLE, detail="no JSON in it")
    planned = next(record.event for record in scene.records if isinstance(record.event, RunPlanned))
    assert [step.kind for step in planned.steps] == ["general"]
    assert "no JSON in it" in planned.reason


def test_a_kind_of_the_users_choice_is_one_step() -> None:
    """Nothing is split and no model asked."""
    scene = Scene()
    scene.submit(submitted(f"1. {ROCK}\n2. {NPC}", options=RunOptions(kind="game")))
    planned = scene.records[1].event
    assert isinstance(planned, RunPlanned)
    assert planned.planner is Planner.USER
    assert [step.kind for step in planned.steps] == ["game"]


def test_several_tasks_are_planned_by_a_model_that_can() -> None:
    """Its plan is checked, and recorded with who made it."""
    scene = Scene()
    assert said(scene.submit(submitted(f"First: {ROCK}. Then: {NPC}"))) == ["requested"]
    asked = scene.asked().event
    assert isinstance(asked, GenerationRequested)
    assert (asked.ask.purpose, asked.ask.step) == (Purpose.PLAN, 0)
    assert "dialogue" in asked.ask.kinds
    items = (PlanItem(kind="game", brief=ROCK), PlanItem(kind="dialogue", brief=NPC))
    scene.answer(plan=items)
    planned = next(record.event for record in scene.records if isinstance(record.event, RunPlanned))
    assert (planned.planner, planned.reason) == (Planner.MODEL, "planned by demo")
    assert [step.brief for step in planned.steps] == [ROCK, NPC]


def test_a_bad_plan_gives_way_to_the_rules() -> None:
    """A brief that does not stand in the request makes the plan void; the reason is recorded."""
    scene = Scene()
    scene.submit(submitted(f"First: {ROCK}. Then: {NPC}"))
    scene.answer(plan=(PlanItem(kind="game", brief="Play chess"),))
    planned = next(record.event for record in scene.records if isinstance(record.event, RunPlanned))
    assert planned.planner is Planner.RULES
    assert "step 1 is no verbatim part of the request" in planned.reason
    assert [step.kind for step in planned.steps] == ["game", "dialogue"]


def test_a_planner_that_is_not_admitted_or_does_not_answer_gives_way_to_the_rules() -> None:
    """Neither a refused lease nor a lost worker keeps a run from its plan."""
    for lost in (False, True):
        scene = Scene()
        scene.submit(submitted(f"First: {ROCK}. Then: {NPC}"))
        request = scene.asked()
        if lost:
            scene.hear(grant(scene), agent="governor", to=request)
            scene.elapse("plan")
        else:
            refused = LeaseRefused(request=request.id, refusal=Refusal.NEVER_FITS, detail="it needs 9 GB")
            scene.hear(refused, agent="governor", to=request)
        planned = next(record.event for record in scene.records if isinstance(record.event, RunPlanned))
        assert planned.planner is Planner.RULES


def grant(scene: Scene) -> LeaseGranted:
    """Return the lease on the newest question."""
    request = scene.asked()
    assert isinstance(request.event, GenerationRequested)
    return LeaseGranted(
        request=request.id,
        ask=request.event.ask,
        node="local",
        instance=f"{request.event.ask.model}#1",
        load=False,
        bytes_reserved=0,
        context=1024,
        expires_at=scene.now_ms + 120_000,
    )


def test_a_failed_step_does_not_stop_the_next() -> None:
    """The run is partial, and says which step failed and why."""
    scene = Scene()
    scene.submit(submitted(f"1. {ROCK}\n2. {NPC}", models=(replace(DEMO, plans=False),)))
    scene.answer("a")
    scene.validate()
    assert said(scene.execute(ExecutionVerdict.REFUSED, detail="no sandbox here")) == [
        "failed",
        "attempt_started",
        "requested",
    ]
    accept(scene, "b")
    status, reason = ended(scene)
    assert status is RunStatus.PARTIAL
    assert reason == "1 of 2 steps accepted; step 1: no sandbox here"


def test_a_step_that_needs_a_file_of_a_failed_one_is_refused() -> None:
    """It is not begun, and names the file and the step."""
    scene = Scene()
    wish = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."
    scene.submit(submitted(wish, models=(replace(DEMO, plans=False),)))
    scene.answer("a")
    scene.validate()
    scene.execute(ExecutionVerdict.REFUSED, detail="no sandbox here")
    assert ended(scene)[0] is RunStatus.REFUSED
    assert failure(scene).reason == "it needs 'generated_character.png', which step 1 did not make"


def test_a_step_gets_the_files_that_earlier_ones_made() -> None:
    """By name, beside the files of the run."""
    scene = Scene()
    wish = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."
    hat = FileRef(name="hat.png", blob=blob("hat"))
    scene.submit(submitted(wish, models=(replace(DEMO, plans=False),), files=(hat,)))
    scene.answer("a")
    scene.validate()
    made = FileRef(name="generated_character.png", blob=blob("picture"))
    scene.execute(artifacts=(made,))
    scene.answer("b")
    scene.validate()
    asked = scene.asked().event
    assert isinstance(asked, ExecutionRequested)
    assert asked.files == (hat, made)


def test_pages_are_fetched_only_from_allowed_hosts() -> None:
    """The request names the pages; the sandbox gets those, and nothing else."""
    scene = Scene()
    scene.submit(submitted(NEWS, options=RunOptions(hosts=("127.0.0.1:8000",))))
    scene.answer()
    scene.validate()
    asked = scene.asked().event
    assert isinstance(asked, ExecutionRequested)
    assert asked.urls == ("http://127.0.0.1:8000/news",)


def test_a_host_that_is_not_allowed_is_named_with_the_flag() -> None:
    """Before any model is asked."""
    for request, host in ((NEWS, "127.0.0.1:8000"), (NEWS_SECTION, "news.example.com")):
        scene = Scene()
        assert said(scene.submit(submitted(request))) == ["planned", "failed", "closed"]
        status, reason = ended(scene)
        assert status is RunStatus.REFUSED
        assert reason == f"fetching pages from {host} is not allowed; allow it with --allow-host {host}"


def test_a_scraper_without_a_page_is_refused() -> None:
    """There is nothing to fetch."""
    scene = Scene()
    scene.submit(submitted("Scrape all titles with BeautifulSoup."))
    assert ended(scene)[0] is RunStatus.REFUSED
    assert "names no page" in ended(scene)[1]


def test_a_cancelled_run_ends_at_once_at_any_moment() -> None:
    """Before the answer, before the validation, before the execution."""
    for words in range(3):
        scene = Scene()
        scene.submit(submitted(ROCK))
        if words > 0:
            scene.answer()
        if words > 1:
            scene.validate()
        assert said(scene.hear(RunCancelRequested(reason="Ctrl-C"), agent="client")) == ["closed"]
        assert ended(scene) == (RunStatus.CANCELLED, "Ctrl-C")
        assert scene.closed is not None
        assert scene.closed.results[0].accepted is False


def test_a_run_out_of_time_ends() -> None:
    """Its deadline is a timer like any other."""
    scene = Scene()
    scene.submit(submitted(ROCK, options=RunOptions(timeout_ms=5_000)))
    assert scene.timers() == {"run": scene.now_ms + 5_000}
    assert said(scene.elapse("run")) == ["closed"]
    assert ended(scene) == (RunStatus.TIMED_OUT, "not finished within 5 s")


def test_cases_of_the_user_belong_to_one_function() -> None:
    """With several functions in the plan nobody knows whose they are."""
    scene = Scene()
    cases = (Case(arguments="[1]", one_of=("2",)),)
    scene.submit(submitted(f"1. {ROCK}\n2. {NPC}", models=(LARGE,), cases=cases))
    scene.answer(outcome=GenerationOutcome.UNUSABLE)
    assert ended(scene)[0] is RunStatus.REFUSED
    assert "2 steps that write a function" in ended(scene)[1]
