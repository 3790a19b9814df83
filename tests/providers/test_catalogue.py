from __future__ import annotations

import pytest

from runner.errors import UsageError
from runner.providers.catalogue import Catalogue
from runner.providers.spec import load, names

URL, TAIL = "https://files.example/a.png", "https://files.example/b.png"
EVERY = [(provider, name) for provider in names() for name in load(provider).models]


@pytest.fixture
def shape():
    return Catalogue().find


def wrong(found, params):
    """What was wrong, as (name, text, hint)."""
    _, mistakes = found.request(params)
    return [(mistake.name, mistake.message, mistake.hint) for mistake in mistakes]


def right(found, params):
    request, mistakes = found.request(params)
    assert mistakes == []
    return request


def smallest(model):
    """A value for every parameter that is needed."""
    made = {}
    for own, parameter in model.parameters.items():
        if not parameter.required:
            continue
        kinds = {"string": "x", "integer": int(parameter.min or 1), "list": [URL], "image": URL}
        made[own] = parameter.choices[0] if parameter.choices else kinds[parameter.type]
    if any("needs image or" in refusal.say for refusal in model.refuse):
        made["image"] = URL
    if any("needs prompt, or" in refusal.say for refusal in model.refuse):
        made["prompt"] = "x"
    return made


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_model_takes_its_smallest_request_as_it_is(provider, name, shape):
    model = load(provider).models[name]
    request = right(shape(provider, f"{model.operation}/{name.rpartition('/')[2]}"), smallest(model))
    defaults = {own: parameter.default for own, parameter in model.parameters.items() if parameter.default is not None}
    assert request == defaults | smallest(model)


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_choice_of_every_model_is_taken_also_as_text_out_of_a_csv(provider, name, shape):
    model = load(provider).models[name]
    found = shape(provider, f"{model.operation}/{name.rpartition('/')[2]}")
    for own, parameter in model.parameters.items():
        for choice in parameter.choices or ():
            params = smallest(model) | {own: str(choice)}
            request, mistakes = found.request(params)
            assert [mistake for mistake in mistakes if mistake.name] == []
            assert mistakes or request[own] == choice
            assert mistakes or type(request[own]) is type(choice)


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_no_two_parameters_of_a_model_share_a_common_name(provider, name):
    common = [each for parameter in load(provider).models[name].parameters.values() for each in parameter.common]
    assert len(common) == len(set(common))


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_model_says_where_its_facts_come_from(provider, name):
    assert load(provider).models[name].source


# finding


def test_a_model_is_found_by_its_code_or_with_its_operation(shape):
    assert shape("chanjing", "kling-v2-1").operation == "image"
    assert shape("chanjing", "image/kling-v2-1").code == "kling-v2-1"
    assert shape("kling", "image2video/kling-v3").code == "kling-v3"


def test_a_bare_name_of_several_models_is_refused(shape):
    with pytest.raises(UsageError) as caught:
        shape("kling", "kling-v3")
    assert "several models" in caught.value.message
    assert caught.value.hint == "write one of: image/kling-v3, image2video/kling-v3, text2video/kling-v3"


@pytest.mark.parametrize(
    ("provider", "model", "near"),
    [
        ("chanjing", "kling-v2.1", "kling-v2-1"),
        ("chanjing", "doubao-seedance-1.0-pro", "Doubao-Seedance-1.0-pro"),
        ("kling", "text2video/kling-v26", "text2video/kling-v2-6"),
    ],
)
def test_an_unknown_model_is_refused_with_the_closest_names(shape, provider, model, near):
    with pytest.raises(UsageError) as caught:
        shape(provider, model)
    assert near in caught.value.hint
    assert f"runner models {provider}" in caught.value.hint


def test_an_unknown_provider_is_refused_with_those_that_are_known(shape):
    with pytest.raises(UsageError) as caught:
        shape("klang", "x")
    assert "chanjing, kling, kling-gateway" in caught.value.hint


def test_an_unchecked_code_goes_through_with_common_names_translated(shape):
    found = shape("chanjing", "video/kling-9", unchecked=True)
    assert (found.operation, found.code) == ("video", "kling-9")
    assert found.takes("prompt")
    assert right(found, {"prompt": "x", "duration": 7, "nonsense": {"a": 1}}) == {
        "ref_prompt": "x",
        "video_duration": 7,
        "nonsense": {"a": 1},
    }


def test_an_unchecked_code_still_needs_its_operation(shape):
    with pytest.raises(UsageError) as caught:
        shape("kling", "kling-9", unchecked=True)
    assert "write image/kling-9 or text2video/kling-9" in caught.value.hint


def test_what_is_in_the_catalogue_is_checked_even_when_unchecked_is_allowed(shape):
    assert wrong(shape("chanjing", "kling-v2-1", unchecked=True), {"prompt": "x", "clarity": 1})


# checking


def test_a_parameter_that_is_not_one_is_refused_with_a_hint(shape):
    ((name, text, hint),) = wrong(shape("kling", "image/kling-v3"), {"prompt": "x", "aspect_ration": "1:1"})
    assert (name, text) == ("aspect_ration", "is not a parameter of kling-v3")
    assert hint == "did you mean aspect_ratio?"
    ((_, _, hint),) = wrong(shape("chanjing", "kling-v2-1"), {"prompt": "x", "zzz": 1})
    assert hint.startswith("it takes ")


@pytest.mark.parametrize(
    ("params", "name", "text"),
    [
        ({"n": 10}, "n", "10 is too much"),
        ({"n": 0}, "n", "0 is too small"),
        ({"n": "many"}, "n", "'many' is not a whole number"),
        ({"n": 1.5}, "n", "1.5 is not a whole number"),
        ({"n": True}, "n", "True is not a whole number"),
        ({"image_fidelity": 1.01}, "image_fidelity", "1.01 is too much"),
        ({"image_fidelity": "half"}, "image_fidelity", "'half' is not a number"),
        ({"aspect_ratio": "16x9"}, "aspect_ratio", "'16x9' is not one of its values"),
        ({"aspect_ratio": True}, "aspect_ratio", "True is not one of its values"),
        ({"prompt": "x" * 2501}, "prompt", "2501 characters is too much"),
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": ["x"]}, "prompt", "['x'] is not text"),
        ({"element_list": "x"}, "element_list", "'x' is not a list"),
        ({"element_list": [{}] * 11}, "element_list", "11 entries is too much"),
        ({"watermark_info": []}, "watermark_info", "[] is not a mapping"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "a data: URL is not taken"),
        ({"image": "boat.png"}, "image", "'boat.png' is neither a URL nor Base64"),
        ({"image": "ftp://files.example/a.png"}, "image", "'ftp://files.example/a.png' is neither a URL nor Base64"),
        ({"image": 5}, "image", "5 is not the URL or the file of an image"),
    ],
)
def test_every_mistake_names_the_parameter_and_what_was_expected(shape, params, name, text):
    ((where, message, hint),) = wrong(shape("kling", "image/kling-v2-1"), {"prompt": "a boat"} | params)
    assert (where, message) == (name, text)
    assert hint


def test_every_mistake_is_told_at_once(shape):
    told = wrong(shape("kling", "image/kling-v2-1"), {"n": 99, "aspect_ratio": "1x1", "pormpt": "x"})
    assert [name for name, _, _ in told] == ["pormpt", "aspect_ratio", "n", ""]


def test_a_bad_value_does_not_count_as_missing(shape):
    assert [name for name, _, _ in wrong(shape("kling", "image/kling-v2-1"), {"prompt": "x" * 9999})] == ["prompt"]


def test_what_is_needed_is_asked_for_by_its_common_name(shape):
    told = wrong(shape("chanjing", "tx_kling2.5"), {"prompt": "x"})
    assert told == [("", "tx_kling2.5 needs duration", "add duration to params (a whole number)")]
    told = wrong(shape("chanjing", "Doubao-Seedance-1.0-pro"), {"prompt": "x"})
    assert told == [("", "Doubao-Seedance-1.0-pro needs duration", "add duration to params (5, 10)")]


def test_an_empty_cell_is_nothing(shape):
    assert right(shape("kling", "image/kling-v3"), {"prompt": "x", "n": None}) == {"prompt": "x"}
    assert wrong(shape("kling", "image/kling-v3"), {"prompt": None})


# coercion


@pytest.mark.parametrize("written", [5, "5"])
def test_klings_durations_are_text(shape, written):
    request = right(shape("kling", "text2video/kling-v2-6"), {"prompt": "x", "duration": written})
    assert request["duration"] == "5"


@pytest.mark.parametrize("written", [5, "5"])
def test_chanjings_durations_are_numbers(shape, written):
    for model in ("tx_kling2.5", "kling2.5"):
        assert right(shape("chanjing", model), {"prompt": "x", "duration": written})["video_duration"] == 5


def test_text_out_of_a_csv_becomes_what_it_means(shape):
    found = shape("kling", "image/kling-v2-1")
    request = right(found, {"prompt": "x", "n": "3", "image_fidelity": "0.5"})
    assert request == {"prompt": "x", "n": 3, "image_fidelity": 0.5}
    multi = right(shape("kling", "text2video/kling-v3"), {"prompt": "x", "multi_shot": "TRUE"})
    assert multi["multi_shot"] is True
    assert right(found, {"prompt": 2026})["prompt"] == "2026"
    assert right(shape("chanjing", "seedance-2.0-lite-wetoken"), {"prompt": "x", "duration": 5, "clarity": "4K"})


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_no_text_becomes_a_number_that_is_none(shape, value):
    assert wrong(shape("kling", "image/kling-v2-1"), {"prompt": "x", "image_fidelity": value})


# common names


def test_common_names_become_the_providers_own(shape):
    found = shape("chanjing", "kling-v2-1")
    assert found.takes("prompt")
    assert found.takes("ref_prompt")
    assert not found.takes("image")
    assert right(found, {"prompt": "x", "n": 2, "aspect_ratio": "9:16"}) == {
        "ref_prompt": "x",
        "number_of_images": 2,
        "aspect_ratio": "9:16",
    }


@pytest.mark.parametrize("order", [("image", "image_tail"), ("image_tail", "image")])
def test_first_and_last_frame_fill_a_list_in_their_own_order(shape, order):
    frames = {"image": URL, "image_tail": TAIL}
    params = {"duration": 5} | {name: frames[name] for name in order}
    assert right(shape("chanjing", "tx_kling-v2-1-master"), params)["ref_img_url"] == [URL, TAIL]


def test_a_single_image_becomes_a_list_of_one_and_a_list_stays_one(shape):
    found = shape("chanjing", "doubao-seedream-4.0")
    assert right(found, {"prompt": "x", "image": URL})["ref_img_url"] == [URL]
    assert right(found, {"prompt": "x", "ref_img_url": [URL, TAIL]})["ref_img_url"] == [URL, TAIL]
    assert wrong(found, {"prompt": "x", "ref_img_url": [URL] * 5})
    assert wrong(found, {"prompt": "x", "ref_img_url": ["boat.png"]})
    assert wrong(found, {"prompt": "x", "ref_img_url": [5]})


def test_frames_go_into_fields_of_their_own_where_there_are_some(shape):
    request = right(shape("chanjing", "tx_kling2.5"), {"duration": 5, "image": URL, "image_tail": TAIL})
    assert (request["start_frame"], request["end_frame"]) == (URL, TAIL)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("kling-v2-1", {"prompt": "x", "ref_prompt": "y"}),
        ("doubao-seedream-4.0", {"prompt": "x", "image": URL, "ref_img_url": [TAIL]}),
    ],
)
def test_both_names_of_one_thing_are_refused(shape, model, params):
    ((_, message, hint),) = wrong(shape("chanjing", model), params)
    assert message.startswith("says the same as ")
    assert hint == "leave one of them out"


# rules between parameters

TURBO = {"prompt": "x", "duration": 5, "image": URL, "aspect_ratio": "1:1"}


@pytest.mark.parametrize(
    ("provider", "model", "params", "say"),
    [
        ("kling", "image/kling-v3", {"prompt": "x", "image": URL, "negative_prompt": "y"}, "takes no negative_prompt"),
        ("kling", "image2video/kling-v2-6", {"prompt": "x"}, "needs image or image_tail"),
        ("kling", "image2video/kling-v1", {"image": URL, "image_tail": TAIL, "camera_control": {"type": "x"}}, "both"),
        ("kling", "text2video/kling-v3", {"mode": "std"}, "needs prompt, or multi_prompt"),
        ("kling-gateway", "image2video/kling-v1", {"prompt": "x"}, "needs image or image_tail"),
        ("chanjing", "kling-v2-5-turbo-normal", TURBO, "only without"),
    ],
)  # fmt: skip
def test_a_combination_that_is_not_taken_is_refused_before_anything_is_sent(shape, provider, model, params, say):
    ((name, message, _),) = wrong(shape(provider, model), params)
    assert name == ""
    assert say in message


def test_rules_between_parameters_let_good_combinations_through(shape):
    assert right(shape("kling", "image2video/kling-v2-6"), {"image_tail": TAIL})
    assert right(shape("kling", "text2video/kling-v3"), {"multi_shot": True, "multi_prompt": [{"index": 1}]})
    assert right(shape("chanjing", "kling-v2-5-turbo-normal"), {"prompt": "x", "duration": 5, "aspect_ratio": "1:1"})


def test_a_default_that_would_be_guessed_elsewhere_is_sent(shape):
    """Gateways put 1:1 where nothing is said."""
    assert right(shape("kling-gateway", "image/kling-v1"), {"prompt": "x"})["aspect_ratio"] == "16:9"
    assert (
        right(shape("kling-gateway", "image/kling-v1"), {"prompt": "x", "aspect_ratio": "1:1"})["aspect_ratio"] == "1:1"
    )
    assert right(shape("chanjing", "seedance-2.5-t2v"), {"prompt": "x", "duration": 4})["number_of_images"] == 1


def test_a_request_is_the_same_whatever_the_order_it_was_written_in(shape):
    found = shape("kling", "image/kling-v3")
    first = right(found, {"prompt": "x", "n": 2, "resolution": "2k"})
    second = right(found, {"resolution": "2k", "n": 2, "prompt": "x"})
    assert list(first.items()) == list(second.items())


# what it takes of the window


@pytest.mark.parametrize(("request_", "slots"), [({"n": 9}, 9), ({}, 1), ({"n": 0}, 1), ({"n": "3"}, 1)])
def test_an_image_takes_as_many_slots_as_it_has_pictures(shape, request_, slots):
    assert shape("kling", "image/kling-v3").slots(request_) == slots
    assert shape("kling", "text2video/kling-v3").slots(request_) == 1
    assert shape("chanjing", "kling-v2-1").slots({"number_of_images": 4}) == 1
