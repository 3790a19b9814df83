from __future__ import annotations

import pytest

from runner.errors import UsageError
from runner.providers.catalogue import Catalogue, ModelSchema
from runner.providers.spec import load, spec_paths

URL, TAIL = "https://files.example/a.png", "https://files.example/b.png"
EVERY = [(provider, name) for provider in spec_paths() for name in load(provider).models]


@pytest.fixture
def find_model():
    return Catalogue().find


def diagnostics_of(schema, params):
    """Return the diagnostics of a request as (name, message, hint)."""
    _, diagnostics = schema.request(params)
    return [(each.name, each.message, each.hint) for each in diagnostics]


def request_of(schema, params):
    request, diagnostics = schema.request(params)
    assert diagnostics == []
    return request


def smallest(model):
    """Return a value for every required parameter."""
    params = {}
    for own, parameter in model.parameters.items():
        if not parameter.required:
            continue
        kinds = {"string": "x", "integer": int(parameter.min or 1), "list": [URL], "image": URL}
        params[own] = parameter.choices[0] if parameter.choices else kinds[parameter.type]
    if any("needs image or" in refusal.say for refusal in model.refuse):
        params["image"] = URL
    if any("needs prompt, or" in refusal.say for refusal in model.refuse):
        params["prompt"] = "x"
    return params


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_model_accepts_its_smallest_request(provider, name, find_model):
    model = load(provider).models[name]
    request = request_of(find_model(provider, f"{model.operation}/{name.rpartition('/')[2]}"), smallest(model))
    defaults = {own: parameter.default for own, parameter in model.parameters.items() if parameter.default is not None}
    assert request == defaults | smallest(model)


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_choice_is_accepted_as_text(provider, name, find_model):
    """A CSV file holds text only."""
    model = load(provider).models[name]
    schema = find_model(provider, f"{model.operation}/{name.rpartition('/')[2]}")
    for own, parameter in model.parameters.items():
        for choice in parameter.choices or ():
            params = smallest(model) | {own: str(choice)}
            request, diagnostics = schema.request(params)
            assert [each for each in diagnostics if each.name] == []
            assert diagnostics or request[own] == choice
            assert diagnostics or type(request[own]) is type(choice)


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_common_names_of_a_model_are_distinct(provider, name):
    common = [each for parameter in load(provider).models[name].parameters.values() for each in parameter.common]
    assert len(common) == len(set(common))


@pytest.mark.parametrize(("provider", "name"), EVERY)
def test_every_model_has_a_source(provider, name):
    assert load(provider).models[name].source


# finding a model


def test_model_is_found_by_code_or_operation_and_code(find_model):
    assert find_model("chanjing", "kling-v2-1").operation == "image"
    assert find_model("chanjing", "image/kling-v2-1").code == "kling-v2-1"
    assert find_model("kling", "image2video/kling-v3").code == "kling-v3"


def test_ambiguous_model_name_is_rejected(find_model):
    with pytest.raises(UsageError) as caught:
        find_model("kling", "kling-v3")
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
def test_unknown_model_is_rejected_with_the_closest_names(find_model, provider, model, near):
    with pytest.raises(UsageError) as caught:
        find_model(provider, model)
    assert near in caught.value.hint
    assert f"runner models {provider}" in caught.value.hint


def test_unknown_provider_is_rejected_with_known_names(find_model):
    with pytest.raises(UsageError) as caught:
        find_model("klang", "x")
    assert "chanjing, kling, kling-gateway" in caught.value.hint


def test_unchecked_model_translates_common_names(find_model):
    schema = find_model("chanjing", "video/kling-9", unchecked=True)
    assert (schema.operation, schema.code) == ("video", "kling-9")
    assert schema.takes("prompt")
    assert request_of(schema, {"prompt": "x", "duration": 7, "nonsense": {"a": 1}}) == {
        "ref_prompt": "x",
        "video_duration": 7,
        "nonsense": {"a": 1},
    }


def test_unchecked_model_needs_its_operation(find_model):
    with pytest.raises(UsageError) as caught:
        find_model("kling", "kling-9", unchecked=True)
    assert "write image/kling-9 or text2video/kling-9" in caught.value.hint


def test_catalogued_model_is_checked_despite_unchecked(find_model):
    assert diagnostics_of(find_model("chanjing", "kling-v2-1", unchecked=True), {"prompt": "x", "clarity": 1})


# checking parameters


def test_unknown_parameter_is_rejected_with_a_hint(find_model):
    ((name, text, hint),) = diagnostics_of(
        find_model("kling", "image/kling-v3"), {"prompt": "x", "aspect_ration": "1:1"}
    )
    assert (name, text) == ("aspect_ration", "is not a parameter of kling-v3")
    assert hint == "did you mean aspect_ratio?"
    ((_, _, hint),) = diagnostics_of(find_model("chanjing", "kling-v2-1"), {"prompt": "x", "zzz": 1})
    assert hint.startswith("it takes ")


@pytest.mark.parametrize("value", [2, "2", "2.0", "2.000", 2.0])
def test_whole_numbers_are_taken_as_pandas_writes_them(find_model, value):
    assert request_of(find_model("kling", "image/kling-v3"), {"prompt": "x", "n": value})["n"] == 2
    text = find_model("kling-gateway", "text2video/kling-v2-6")
    assert request_of(text, {"prompt": "2.0", "duration": "5.0"}) | {} == {"prompt": "2.0", "duration": "5", **{
        name: each for name, each in request_of(text, {"prompt": "2.0", "duration": "5"}).items()
        if name not in {"prompt", "duration"}
    }}  # fmt: skip


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
        ({"image": "data:image/png;base64,AAAA"}, "image", "'data:image/png;base64,AAAA' is no picture"),
        ({"image": "boat.png"}, "image", "'boat.png' is neither a URL nor Base64"),
        ({"image": "ftp://files.example/a.png"}, "image", "'ftp://files.example/a.png' is neither a URL nor Base64"),
        ({"image": 5}, "image", "5 is not the URL or the file of an image"),
    ],
)
def test_diagnostic_names_parameter_and_expectation(find_model, params, name, text):
    ((parameter, message, hint),) = diagnostics_of(
        find_model("kling", "image/kling-v2-1"), {"prompt": "a boat"} | params
    )
    assert (parameter, message) == (name, text)
    assert hint


def test_all_diagnostics_are_reported_at_once(find_model):
    diagnostics = diagnostics_of(
        find_model("kling", "image/kling-v2-1"), {"n": 99, "aspect_ratio": "1x1", "pormpt": "x"}
    )
    assert [name for name, _, _ in diagnostics] == ["pormpt", "aspect_ratio", "n", ""]


def test_bad_value_does_not_count_as_missing(find_model):
    assert [name for name, _, _ in diagnostics_of(find_model("kling", "image/kling-v2-1"), {"prompt": "x" * 9999})] == [
        "prompt"
    ]


def test_missing_parameter_is_reported_by_its_common_name(find_model):
    diagnostics = diagnostics_of(find_model("chanjing", "tx_kling2.5"), {"prompt": "x"})
    assert diagnostics == [("", "tx_kling2.5 needs duration", "add duration to params (a whole number)")]
    diagnostics = diagnostics_of(find_model("chanjing", "Doubao-Seedance-1.0-pro"), {"prompt": "x"})
    assert diagnostics == [("", "Doubao-Seedance-1.0-pro needs duration", "add duration to params (5, 10)")]


def test_empty_cell_counts_as_no_value(find_model):
    assert request_of(find_model("kling", "image/kling-v3"), {"prompt": "x", "n": None}) == {"prompt": "x"}
    assert diagnostics_of(find_model("kling", "image/kling-v3"), {"prompt": None})


# converting values


@pytest.mark.parametrize("written", [5, "5"])
def test_duration_of_kling_is_text(find_model, written):
    request = request_of(find_model("kling", "text2video/kling-v2-6"), {"prompt": "x", "duration": written})
    assert request["duration"] == "5"


@pytest.mark.parametrize("written", [5, "5"])
def test_duration_of_chanjing_is_a_number(find_model, written):
    for model in ("tx_kling2.5", "kling2.5"):
        assert request_of(find_model("chanjing", model), {"prompt": "x", "duration": written})["video_duration"] == 5


def test_text_is_converted_to_the_type_of_the_parameter(find_model):
    schema = find_model("kling", "image/kling-v2-1")
    request = request_of(schema, {"prompt": "x", "n": "3", "image_fidelity": "0.5"})
    assert request == {"prompt": "x", "n": 3, "image_fidelity": 0.5}
    multi = request_of(find_model("kling", "text2video/kling-v3"), {"prompt": "x", "multi_shot": "TRUE"})
    assert multi["multi_shot"] is True
    assert request_of(schema, {"prompt": 2026})["prompt"] == "2026"
    assert request_of(
        find_model("chanjing", "seedance-2.0-lite-wetoken"), {"prompt": "x", "duration": 5, "clarity": "4K"}
    )


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_text_never_becomes_nan_or_infinity(find_model, value):
    assert diagnostics_of(find_model("kling", "image/kling-v2-1"), {"prompt": "x", "image_fidelity": value})


# common names


def test_common_names_become_the_providers_own(find_model):
    schema = find_model("chanjing", "kling-v2-1")
    assert schema.takes("prompt")
    assert schema.takes("ref_prompt")
    assert not schema.takes("image")
    assert request_of(schema, {"prompt": "x", "n": 2, "aspect_ratio": "9:16"}) == {
        "ref_prompt": "x",
        "number_of_images": 2,
        "aspect_ratio": "9:16",
    }


@pytest.mark.parametrize("order", [("image", "image_tail"), ("image_tail", "image")])
def test_first_and_last_frame_fill_a_list_in_order(find_model, order):
    frames = {"image": URL, "image_tail": TAIL}
    params = {"duration": 5} | {name: frames[name] for name in order}
    assert request_of(find_model("chanjing", "tx_kling-v2-1-master"), params)["ref_img_url"] == [URL, TAIL]


def test_single_image_becomes_a_list_of_one(find_model):
    schema = find_model("chanjing", "doubao-seedream-4.0")
    assert request_of(schema, {"prompt": "x", "image": URL})["ref_img_url"] == [URL]
    assert request_of(schema, {"prompt": "x", "ref_img_url": [URL, TAIL]})["ref_img_url"] == [URL, TAIL]
    assert diagnostics_of(schema, {"prompt": "x", "ref_img_url": [URL] * 5})
    assert diagnostics_of(schema, {"prompt": "x", "ref_img_url": ["boat.png"]})
    assert diagnostics_of(schema, {"prompt": "x", "ref_img_url": [5]})


def test_frames_fill_their_own_fields_if_there_are_some(find_model):
    request = request_of(find_model("chanjing", "tx_kling2.5"), {"duration": 5, "image": URL, "image_tail": TAIL})
    assert (request["start_frame"], request["end_frame"]) == (URL, TAIL)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("kling-v2-1", {"prompt": "x", "ref_prompt": "y"}),
        ("doubao-seedream-4.0", {"prompt": "x", "image": URL, "ref_img_url": [TAIL]}),
    ],
)
def test_two_names_of_one_parameter_are_rejected(find_model, model, params):
    ((_, message, hint),) = diagnostics_of(find_model("chanjing", model), params)
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
def test_refused_combination_is_rejected_locally(find_model, provider, model, params, say):
    """A combination that the provider does not accept is reported before anything is sent."""
    ((name, message, _),) = diagnostics_of(find_model(provider, model), params)
    assert name == ""
    assert say in message


def test_good_combinations_are_accepted(find_model):
    assert request_of(find_model("kling", "image2video/kling-v2-6"), {"image_tail": TAIL})
    assert request_of(find_model("kling", "text2video/kling-v3"), {"multi_shot": True, "multi_prompt": [{"index": 1}]})
    assert request_of(
        find_model("chanjing", "kling-v2-5-turbo-normal"), {"prompt": "x", "duration": 5, "aspect_ratio": "1:1"}
    )


def test_defaults_are_sent_explicitly(find_model):
    """Some gateways use 1:1 if no ratio is given."""
    assert request_of(find_model("kling-gateway", "image/kling-v1"), {"prompt": "x"})["aspect_ratio"] == "16:9"
    assert (
        request_of(find_model("kling-gateway", "image/kling-v1"), {"prompt": "x", "aspect_ratio": "1:1"})[
            "aspect_ratio"
        ]
        == "1:1"
    )
    assert (
        request_of(find_model("chanjing", "seedance-2.5-t2v"), {"prompt": "x", "duration": 4})["number_of_images"] == 1
    )


def test_request_does_not_depend_on_the_order_of_params(find_model):
    schema = find_model("kling", "image/kling-v3")
    first = request_of(schema, {"prompt": "x", "n": 2, "resolution": "2k"})
    second = request_of(schema, {"resolution": "2k", "n": 2, "prompt": "x"})
    assert list(first.items()) == list(second.items())


# slots of the window


@pytest.mark.parametrize(("request_", "slots"), [({"n": 9}, 9), ({}, 1), ({"n": 0}, 1), ({"n": "3"}, 1)])
def test_image_task_takes_one_slot_per_output(find_model, request_, slots):
    assert find_model("kling", "image/kling-v3").slots(request_) == slots
    assert find_model("kling", "text2video/kling-v3").slots(request_) == 1
    assert find_model("chanjing", "kling-v2-1").slots({"number_of_images": 4}) == 1


def test_endpoint_does_not_depend_on_the_operations_name():
    """Operations of one path differ by the constants that tell them apart; others do not count."""
    spec = load("chanjing")
    image, video = spec.operations["image"], spec.operations["video"]
    endpoints = [ModelSchema(spec, name, "m", None).endpoint for name in ("image", "video")]
    assert endpoints == [f'{image.path} {{"creation_type":3}}', f'{image.path} {{"creation_type":4}}']
    both = {"body": {**image.body, "watermark": 1}}, {"body": {**video.body, "watermark": 1}}
    renamed = {"picture": image.model_copy(update=both[0]), "film": video.model_copy(update=both[1])}
    other = spec.model_copy(update={"operations": renamed})
    assert [ModelSchema(other, name, "m", None).endpoint for name in ("picture", "film")] == endpoints
    assert ModelSchema(load("kling"), "image", "m", None).endpoint == "/v1/images/generations"


def test_implied_values_are_defaults_or_what_is_assumed():
    assert Catalogue().find("kling", "image/kling-v2-1").implied == {"n": 1}
    assert Catalogue().find("kling-gateway", "image/kling-v2-1").implied["aspect_ratio"] == "16:9"
    assert ModelSchema(load("kling"), "image", "unknown", None).implied == {}
