"""One recipe file holds options for every command; the command line wins; each mistake is one line."""

from pathlib import Path

import pytest

from dataprep.arguments import parser as dataprep_parser
from dataprep.cli import main as dataprep_main
from dataprep.tokenize.recipe import read_recipe
from schemas.errors import InputError
from schemas.recipe import parser_with_recipe
from train.cli import _parser as train_parser
from train.cli import main as train_main
from train.config import ALTERNATIVES, settle

RECIPE = """
seed = 3
[normalize]
clean = ["html", "min-turns=2"]
workers = 1
[tokenize]
model = "Qwen/Qwen3-4B"
seq-len = 512
val_fraction = 0.1
[train]
shards = "cache"
epochs = 3
zero = 2
offload-optimizer = true
gradient-checkpointing = true
lora = 8
lora-targets = ["q_proj", "v_proj"]
learning-rate = 2e-5
[sources.glaive]
weight = 2.0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def trained(recipe: str, *arguments: str):
    line = [*arguments, "--recipe", recipe]
    return parser_with_recipe(train_parser, line, ALTERNATIVES).parse_args(line)


def prepared(recipe: str, *arguments: str):
    line = [*arguments, f"--recipe={recipe}"]
    return parser_with_recipe(dataprep_parser, line).parse_args(line)


def test_a_recipe_gives_each_command_its_options(recipe: str) -> None:
    options = trained(recipe, "run")
    assert (options.shards, options.epochs, options.zero, options.learning_rate) == (Path("cache"), 3, 2, 2e-5)
    assert (options.offload_optimizer, options.gradient_checkpointing, options.lora) == (True, "all", 8)
    assert (options.lora_targets, options.seed) == (["q_proj", "v_proj"], None)
    assert trained(recipe, "plan", "--gpus", "2xH100-80G").zero == 2
    options = prepared(recipe, "tokenize", "--seq-len", "64", "elsewhere")
    assert (options.model, options.seq_len, options.val_fraction) == ("Qwen/Qwen3-4B", 64, 0.1)
    assert options.cache == Path("elsewhere")
    assert prepared(recipe, "normalize", "a.jsonl").clean == ["html", "min-turns=2"]


def test_the_command_line_wins(recipe: str) -> None:
    options = trained(recipe, "run", "--zero", "3", "--no-offload-optimizer", "--shards", "b", "--lora-targets", "o")
    assert (options.zero, options.offload_optimizer, options.shards) == (3, False, Path("b"))
    assert options.lora_targets == ["o"]
    options = trained(recipe, "run", "--steps", "7")
    assert (options.steps, options.epochs) == (7, None)
    assert prepared(recipe, "normalize", "--clean", "emoji", "--clean=urls", "a").clean == ["emoji", "urls"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.learning-rte = 1", "train.learning-rte: unknown; did you mean learning-rate?"),
        ("train.gpus = 1", "train.gpus: unknown; one of backend, batch-packs"),
        ("training.zero = 1", "training: unknown; did you mean train?"),
        ("train = 1", "train: expected a table such as [train]"),
        ("train.epochs = 1.5", "train.epochs = 1.5: expected a whole number"),
        ("train.epochs = true", "train.epochs = True: expected a whole number"),
        ("train.dora = 1", "train.dora = 1: expected true or false"),
        ("train.freeze = '*'", "train.freeze = '*': expected a list, as in ['*']"),
        ("train.schedule = 'cosin'", "train.schedule = 'cosin': expected one of cosine, linear, wsd, constant"),
        ("train.model = [1]", "train.model = [1]: expected a text"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_expected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        trained(str(path), "run")
    assert str(caught.value).startswith(f"--recipe {path}: {message}")


def test_both_programs_tell_a_mistake_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("tokenize.seqlen = 1", encoding="utf-8")
    assert dataprep_main(["tokenize", "--recipe", str(path)]) == 1
    assert capsys.readouterr().err == f"dataprep: --recipe {path}: tokenize.seqlen: unknown; did you mean seq-len?\n"
    assert train_main(["run", "--recipe", str(tmp_path / "none.toml")]) == 1
    assert capsys.readouterr().err.endswith("none.toml: cannot be read: No such file or directory; name a .toml file\n")


def test_the_recipes_that_come_with_the_project_suit_every_command() -> None:
    recipes = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
    assert len(recipes) == 5
    for path in recipes:
        read_recipe(path)
        assert prepared(str(path), "tokenize").model
        prepared(str(path), "normalize", "a.jsonl")
        options = trained(str(path), "run")
        method = settle(options, {}, model="m", seq_len=512, num_ranks=1, has_bf16_gpu=True).method
        assert (method.lora is not None) == path.name.startswith("lora")
