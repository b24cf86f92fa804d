"""BibTeX of a run: what its settings name is cited, and the names are those of presets."""

from conftest import ROOT
from omegaconf import OmegaConf

from metatrain.commands.cite import entries, references
from metatrain.models import bases


def recorded(kind: str) -> set[str]:
    """Return the names that runs record of the presets of a group."""
    read = [OmegaConf.load(path) for path in sorted((ROOT / "conf" / kind).glob("*.yaml"))]
    return {f"{kind}={name}" for each in read if (name := (each.get(kind, each)).get("name"))}


def test_every_cited_preset_exists_and_every_method_of_a_paper_is_cited():
    cited = entries()
    assert cited.keys() <= recorded("algorithm") | recorded("model") | recorded("tasks") | {f"model={name}" for name in bases.NAMES}
    assert recorded("algorithm") - cited.keys() == {"algorithm=multitask", "algorithm=recommended", "algorithm=leave_one_out"}
    for entry in {one for each in cited.values() for one in each}:
        assert entry.count("{") == entry.count("}") and all(f"  {field} = {{" in entry for field in ("author", "title", "year"))


def test_a_run_is_cited(cli, tiny_run):
    found = cli("cite", str(tiny_run))
    assert found.code == 0, found.err
    assert "Model-Agnostic Meta-Learning" in found.out and "% model=tiny: no reference is recorded" in found.out and "@software{metatrain," in found.out
    assert (
        references(["algorithm=maml", "algorithm=fomaml"])[0] == references(["algorithm=fomaml"])[0]
        and len(references(["algorithm=maml", "algorithm=fomaml"])) == 2
    )
    wrong = cli("cite", "a", "b")
    assert wrong.code == 2 and "takes one run" in wrong.err
