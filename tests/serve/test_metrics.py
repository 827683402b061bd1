"""`/metrics`, as Prometheus' own parser reads it."""

from prometheus_client.parser import text_string_to_metric_families

from .served import SLOTS


def numbers(client):
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_counts_and_times(client):
    before = numbers(client)
    for stream in (False, True):
        body = {"prompt": "Hi", "max_tokens": 5, "stream": stream, "temperature": 0}
        assert client.post("/v1/completions", json=body).status_code == 200
    client.post("/v1/completions", json={"prompt": "Hi", "n": 0})
    client.get("/nowhere")
    after = numbers(client)

    def grown(*name):
        return after[name] - before.get(name, 0)

    assert grown("tulu_requests_total", "/v1/completions", "200") == 2
    assert grown("tulu_requests_total", "/v1/completions", "400") == 1
    assert grown("tulu_requests_total", "other", "404") == 1
    assert grown("tulu_request_seconds_count") == 2
    assert grown("tulu_first_token_seconds_count") == 1
    assert grown("tulu_generated_tokens_total") == 10
    assert grown("tulu_prompt_tokens_total") > 0
    assert after[("tulu_slots",)] == SLOTS and after[("tulu_queue",)] == 0
    assert after[("tulu_busy_slots",)] == 0 and after[("tulu_queue_limit",)] == 64
    assert after[("tulu_tokens_per_second",)] > 0
