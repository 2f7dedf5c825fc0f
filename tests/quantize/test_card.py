import dataclasses

from bertport.quantize.card import BEGIN, section, with_section


def test_the_section_is_replaced_and_the_rest_stays():
    card = with_section("# Title\n\nText.\n", "one")
    assert card.startswith("# Title\n\nText.\n\n" + BEGIN)
    again = with_section(card + "More.\n", "two")
    assert again.count(BEGIN) == 1
    assert "one" not in again
    assert again.endswith("More.\n")
    assert with_section(again, "two") == again


def test_the_card_of_a_quantized_bundle_tells_what_it_costs(quantized):
    bundle, outcome = quantized
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert section(bundle.manifest) in card
    assert f"| int8-dynamic | {outcome.measured.size_of_reference:.3f} of fp32 |" in card
    assert "2 layers" in card  # what the export wrote


def test_a_bundle_without_heads_shows_the_cosine(quantized):
    manifest = quantized[0].manifest
    without = dataclasses.replace(manifest, heads={})
    heading = next(line for line in section(without).splitlines() if line.startswith("| variant"))
    assert heading == "| variant | size | hidden-state cosine | speed-up | measured on |"
    measured = quantized[1].measured.accuracy.heads["hidden"].cosine.value
    assert f" | {measured:.5f} | " in section(without)


def test_what_another_program_recorded_has_no_row(quantized):
    manifest = quantized[0].manifest
    other = dataclasses.replace(manifest.variants["fp32"], fidelity={"top1": 1.0})
    assert section(dataclasses.replace(manifest, variants={**manifest.variants, "other": other})) == section(manifest)


def test_no_name_of_a_variant_is_markup(quantized):
    manifest = quantized[0].manifest
    name = "a|b <img>\n# c"
    measured = manifest.variants["int8-dynamic"].fidelity
    fidelity = {**measured, "machine": {**measured["machine"], "instruction_set": name}, "not_measured": [name]}
    variant = dataclasses.replace(manifest.variants["int8-dynamic"], fidelity=fidelity)
    text = section(dataclasses.replace(manifest, variants={**manifest.variants, name: variant}))
    assert text.count(r"| a\|b \<img> # c |") == 2
    assert r"Not measured in a\|b \<img> # c: a\|b \<img> # c." in text
    assert "\n# c" not in text


def test_a_provider_that_this_version_does_not_know_is_named(quantized):
    manifest = quantized[0].manifest
    variant = manifest.variants["int8-dynamic"]
    later = dataclasses.replace(variant, fidelity={**variant.fidelity, "provider": "a later one"})
    text = section(dataclasses.replace(manifest, variants={**manifest.variants, "later": later}))
    [row] = [line for line in text.splitlines() if line.startswith("| later |")]
    assert row.endswith(", on a later one |")
