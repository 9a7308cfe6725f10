"""Settings of the simulator: how a fault is written, and what holds for a provider."""

from __future__ import annotations

import pytest

from worker import errors
from worker.simulator import settings


@pytest.mark.parametrize(
    ("text", "provider", "fault"),
    [
        ("groq:server_error=1.0", "groq", settings.Fault(kind="server_error", share=1.0)),
        ("hang=0.25", "*", settings.Fault(kind="hang", share=0.25)),
        ("zai:out_of_credit", "zai", settings.Fault(kind="out_of_credit")),
        (
            "openai:server_error=0.5,status=503",
            "openai",
            settings.Fault(kind="server_error", share=0.5, status=503),
        ),
        (
            "openai:rate_limited=0.1,form=http_date,retry_after_s=2.5",
            "openai",
            settings.Fault(kind="rate_limited", share=0.1, form="http_date", retry_after_s=2.5),
        ),
        ("auth=1,after_calls=100", "*", settings.Fault(kind="auth", after_calls=100)),
        ("malformed=0.1,billed=false", "*", settings.Fault(kind="malformed", share=0.1, billed=False)),
        ("openai:out_of_credit=1,code=x", "openai", settings.Fault(kind="out_of_credit", code="x")),
    ],
)
def test_a_fault_is_written_as_provider_kind_share_and_options(
    text: str, provider: str, fault: settings.Fault
) -> None:
    assert settings.parse_fault(text) == (provider, fault)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("groq:explode=1", "kind"),
        ("groq:hang=1.5", "share"),
        ("groq:hang=often", "share"),
        ("groq:hang=1,colour=red", "colour"),
        ("groq:server_error=1,status=404", "status"),
        ("groq:rate_limited=1,form=telegram", "form"),
        ("", "kind"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_field_and_the_way_to_write_it(text: str, names: str) -> None:
    with pytest.raises(errors.SettingsError, match=names) as caught:
        settings.parse_fault(text)
    assert "PROVIDER:KIND=SHARE" in str(caught.value)


def test_a_provider_takes_from_the_common_entry_what_its_own_leaves_out() -> None:
    read = settings.parse(
        '{"providers": {"*": {"latency_ms": 50, "faults": [{"kind": "hang", "share": 0.1}]},'
        ' "groq": {"limits": {"rpm": 30}}, "zai": {"latency_ms": 900, "faults": []}}}'
    )
    assert read.of("groq").latency_ms == 50
    assert read.of("groq").limits.rpm == 30
    assert [fault.kind for fault in read.of("groq").faults] == ["hang"]
    assert (read.of("zai").latency_ms, read.of("zai").faults) == (900, ())
    assert read.of("unheard-of") == read.of("*")


def test_new_faults_take_the_place_of_all_others_and_leave_the_rest() -> None:
    before = settings.parse(
        '{"providers": {"*": {"latency_ms": 50, "faults": [{"kind": "hang"}]},'
        ' "groq": {"limits": {"rpm": 30}}}}'
    )
    after = before.with_faults(["groq:auth=0.5", "groq:reset=0.5"])
    assert [fault.kind for fault in after.of("groq").faults] == ["auth", "reset"]
    assert after.of("groq").limits.rpm == 30
    assert (after.of("openai").faults, after.of("openai").latency_ms) == ((), 50)
    assert after.with_faults([]).of("groq").faults == ()


def test_shares_that_add_up_to_more_than_all_calls_are_refused() -> None:
    with pytest.raises(errors.SettingsError, match=r"groq.*add up to 1\.2"):
        settings.Settings().with_faults(["groq:hang=0.6", "groq:reset=0.6"])


def test_a_fault_that_begins_later_may_come_on_top_of_others() -> None:
    read = settings.Settings().with_faults(["groq:reset=0.6", "groq:auth=1,after_calls=10"])
    assert len(read.of("groq").faults) == 2


@pytest.mark.parametrize(
    ("json", "place"),
    [
        ("{", "JSON"),
        ('{"providers": {"groq": {"latency_ms": -1}}}', "providers.groq.latency_ms"),
        ('{"providers": {"groq": {"limits": {"rpm": 0}}}}', "providers.groq.limits.rpm"),
        ('{"latency_ms": 1}', "latency_ms"),
    ],
)
def test_wrong_settings_are_refused_with_the_place(json: str, place: str) -> None:
    with pytest.raises(errors.SettingsError, match=place):
        settings.parse(json)
