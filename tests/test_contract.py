"""One property suite over models and decoders: ours keep it, models of other shapes too, and broken ones are caught."""

from collections.abc import Iterator

import pytest
import torch
from toys import chained_model, eight_members, pyramid_model, regions_model, toy_model

from orderbench.models.answer import at
from orderbench.models.contract import check_decoder, check_model
from orderbench.models.decode import DECODERS, Step, Tile, parse_decoder, plain_steps, register_decoder
from orderbench.models.probe import Broken
from orderbench.orders import make_plan

MODELS = {
    "ours": lambda: toy_model(4, 4),
    "of eight members": eight_members,
    "of a pyramid": pyramid_model,
    "of three codes a cell": chained_model,
    "of one order": regions_model,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_keeps_the_contract(name: str) -> None:
    verdicts = check_model(MODELS[name](), "cpu")
    assert [str(v) for v in verdicts if v.verdict != "pass"] == []
    checked = {v.check for v in verdicts}
    assert "decoder off" in checked
    assert ("decoder nested" in checked) == (name != "of one order")
    assert ("slots" in checked) == (name not in ("of one order", "of eight members"))


@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:5"])
@pytest.mark.parametrize("name", DECODERS.names())
def test_every_registered_decoder_keeps_its_traits(name: str, text: str) -> None:
    model = toy_model(4, 4)
    check_decoder(parse_decoder(name), model, make_plan(text, model.lattice))


# Decoders that are not what they say


def test_an_exact_decoder_gives_the_codes_of_one_cell_at_a_time() -> None:
    """A toy one asks a group cell by cell, whatever the plan says; cut by the plan it would not be exact."""

    @register_decoder("by-cell", paper="none", idea="a toy", exact=True, varies=True)
    def by_cell(tile: Tile) -> Iterator[Step]:
        cache = tile.open()
        for place in range(tile.plan.lattice.n_cells):
            cells_BG = tile.cells_BL[:, place : place + 1]
            answer = tile.ask(cache, cells_BG, tile.scales_L[place : place + 1])
            codes_BGK = tile.new_codes(answer, cells_BG)
            tile.write(cells_BG, codes_BGK)
            yield Step(place, cells_BG, codes_BGK, answer)
            tile.feed(cache, codes_BGK, cells_BG)

    register_decoder("not-exact", paper="none", idea="a toy", exact=True)(lambda tile: plain_steps(tile))
    model = toy_model(4, 4)
    plan = make_plan("radial", model.lattice)
    check_decoder(parse_decoder("by-cell"), model, plan)
    with pytest.raises(Broken, match=r"registered as exact, and [1-4] of 4 images are not those of one cell at a time"):
        check_decoder(parse_decoder("not-exact"), model, plan)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("twice", "writes cells 1 to 2 times"),
        ("rewrites", "rewrites codes and does not say so"),
        ("global", "draw with the tile's noise alone"),
        ("forgets", "writes cells 0 to 1 times"),
        ("extra", "its work depends on what is drawn, so register it with varies=True"),
    ],
)
def test_decoders_that_break_a_promise_are_caught(fault: str, sentence: str) -> None:
    @register_decoder("broken", paper="none", idea="a toy")
    def broken(tile: Tile) -> Iterator[Step]:
        for step in plain_steps(tile):
            if fault == "global":
                drawn = torch.randint_like(step.codes_BQK, 0, 11)
                tile.write(step.cells_BQ, drawn)
            if fault == "forgets" and step.index == 1:
                continue
            if fault == "extra":
                tile.counters.passes += int(at(tile.codes_BLK, step.cells_BQ).sum())
            yield step
            if fault == "twice" and step.index == 0:
                yield step
            if fault == "rewrites" and step.index == 2:
                tile.rewrite(step.cells_BQ, (step.codes_BQK + 1) % 11)

    model = toy_model(4, 4)
    with pytest.raises(Broken, match=sentence):
        check_decoder(parse_decoder("broken"), model, make_plan("radial", model.lattice))


def test_rounding_is_told_from_a_fault() -> None:
    """Half precision moves answers by more than is allowed, and a copy in fp32 tells that from a lie."""
    register_decoder("inexact", paper="none", idea="a toy", exact=True)(lambda tile: plain_steps(tile))
    verdicts = {verdict.check: verdict for verdict in check_model(toy_model(8, 8).half(), "cpu")}
    assert verdicts["decoder inexact"].verdict == "fail"
    assert {name for name, one in verdicts.items() if one.verdict == "fail"} == {"decoder inexact"}
    rounded = [one for one in verdicts.values() if "(in fp32; in its own numbers " in one.says]
    assert any("one feeding and one asking under masks give other logits" in one.says for one in rounded)
    assert not any("in fp32" in one.says for one in check_model(toy_model(4, 4), "cpu"))


def test_slots_that_nobody_wrote_do_no_harm() -> None:
    """A mask over named slots covers some that are still empty; here torch fills such memory with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        failed = [verdict for verdict in check_model(chained_model(), "cpu") if verdict.verdict == "fail"]
    finally:
        torch.use_deterministic_algorithms(before)
    assert failed == []
