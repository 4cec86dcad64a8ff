"""Secrets in use are masked in words of others, in every form in which they may come back."""

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest

from poller.redaction import MASK, SECRETS, Redactor, redacted

SECRET = 'c4n/ary+"ö\\=&#x y'


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add(SECRET)
    return made


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        b64encode(SECRET.encode()).decode(),
        *(b64encode(b"\0poller\0"[before:] + SECRET.encode() + b"!").decode() for before in range(3)),
    ],
)
def test_a_secret_is_masked_in_every_form(redactor, form):
    shown = redactor.redacted(f"before {form} after")

    assert MASK in shown
    assert "ary" not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_a_user_name_with_its_password_is_masked_as_it_is_sent():
    redactor = Redactor()
    redactor.add_pair("poller", "c4nary-pw")

    basic = b64encode(b"poller:c4nary-pw").decode()
    assert redactor.redacted(f"you sent Basic {basic}, poller") == f"you sent Basic {MASK}, poller"


@pytest.mark.parametrize("password", ["c4nary-1", "c4n/ary", "c4n#ary", "c4n/a?r#y@x", "c4n%2Fary"])
def test_a_password_in_a_url_is_a_secret_by_itself(password):
    redactor = Redactor()
    redactor.add(f"http://poller:{password}@proxy.example:3128")

    assert redactor.redacted(f"407 for {password}") == f"407 for {MASK}"
    assert "c4n" not in redactor.redacted(b64encode(f"poller:{password}".encode()).decode())


def test_of_a_hook_url_its_path_and_query_are_secrets_by_themselves():
    redactor = Redactor()
    redactor.add("https://hooks.slack.example/services/T0000/B0000/c4naryc4naryc4nary?key=c4nary-key")

    for echoed in ("/services/T0000/B0000/c4naryc4naryc4nary", "c4naryc4naryc4nary", "c4nary-key"):
        assert "c4nary" not in redactor.redacted(f"no service at {echoed}")


def test_a_password_of_nobody_known_is_masked_in_a_url():
    assert redacted("see ftp://a:b@host/x and http://host/a@b") == f"see ftp://{MASK}@host/x and http://host/a@b"


@pytest.mark.parametrize("value", ["", "a", "abc", "secret", "password", "acme"])
def test_words_are_not_masked_in_texts(value):
    SECRETS.add(value)

    assert redacted("a password of acme is no secret abc") == "a password of acme is no secret abc"
    assert SECRETS.holds(value)


def test_data_is_altered_by_long_secrets_alone():
    redactor = Redactor()
    redactor.add("c4nary-short"[:11])
    redactor.add("c4nary-and-long")

    assert redactor.redacted_data(b'{"a": "c4nary-shor", "b": "c4nary-and-long"}') == (
        b'{"a": "c4nary-shor", "b": "**********"}'
    )
    body = b'{"a": 1}'
    assert redactor.redacted_data(body) is body


def test_the_oldest_of_very_many_tokens_are_forgotten():
    redactor = Redactor()
    for number in range(11_000):
        redactor.add(f"token-{number:05}")

    assert not redactor.holds("token-00000")
    assert redactor.redacted("token-10999") == MASK


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example:8443/t/0?key=c4nary", f"https://hooks.example:8443/{MASK}"),
        ("http://poller:c4nary@127.0.0.1/hook", f"http://127.0.0.1/{MASK}"),
        ("http://poller:c4n/ary@127.0.0.1/hook", f"http://127.0.0.1/{MASK}"),
        ("http://[::1]:80/hook", f"http://[::1]:80/{MASK}"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
    ],
)
def test_of_a_secret_url_scheme_and_host_stay(url, shown):
    redactor = Redactor()
    redactor.add(url)

    assert redactor.redacted(f"{url}: no answer") == f"{shown}: no answer"


def test_thousands_of_secrets_are_masked_as_one_is():
    redactor = Redactor()
    urls = [f"https://hooks.example/services/T{number:05}/B{number:016}" for number in range(1000)]
    for url in urls:
        redactor.add(url)

    said = f"{urls[7]} answered 500: no {urls[999].rpartition('/')[2]}, not /services/T00500/B{500:016}"
    assert redactor.redacted(said) == f"https://hooks.example/{MASK} answered 500: no {MASK}, not {MASK}"
    body = b'{"url":"%s","other":"https://hooks.example/services"}' % urls[998].encode()
    assert redactor.redacted_data(body) == b'{"url":"%s","other":"https://hooks.example/services"}' % MASK.encode()


@pytest.mark.parametrize("others", [0, 1000])
def test_of_secrets_that_begin_alike_the_longest_is_masked(others):
    redactor = Redactor()
    for secret in ["c4nary-secret", "c4nary-secret-2", *(f"other-{number:08}" for number in range(others))]:
        redactor.add(secret)

    assert redactor.redacted("c4nary-secret-2 c4nary-secretc4nary-secret") == f"{MASK} {MASK}{MASK}"
    assert redactor.redacted_data(b"<c4nary-secret-2>") == b"<" + MASK.encode() + b">"
