"""What a server or a member must not do is refused, with its reason and who did it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.secagg import (
    Group,
    KeyTable,
    Masked,
    SecAggError,
    answer,
    check_group,
    check_table,
    ciphertexts_for,
    make_group,
    make_table,
    mask,
    new_identity,
    read_answer,
    read_masked,
)
from tests.secagg_sites import ROUNDS, RUN, Round, group_of, site, vectors_of

MEMBERS = range(6)
PEERS = {client: site(client)[0].public for client in MEMBERS}


def group() -> Group:
    return group_of(MEMBERS, 4)


def changed(client: int, **values: Any) -> Group:
    """Return the group with another entry of one member."""
    made = group()
    members = tuple(
        dataclasses.replace(m, **values) if m.client == client else m for m in made.members
    )
    return dataclasses.replace(made, members=members)


def check(given: Group, peers: dict[int, bytes] | None = PEERS, **more: Any) -> dict[int, bytes]:
    arguments: dict[str, Any] = {"run": RUN, "round": 1, "peers": peers, **more}
    return check_group(Group.from_bytes(given.to_bytes()), site(0)[1][1], 0, **arguments)


def test_an_honest_group_is_accepted_and_its_identities_pinned_where_none_are_known() -> None:
    assert check(group()) == {}
    assert check(group(), None, pinned={99: b"x" * 49}) == {99: b"x" * 49, **PEERS}


def stranger() -> tuple[bytes, KeyTable]:
    """Keys for client 3 that somebody in the middle made."""
    identity = new_identity()
    return identity.public, make_table(identity, RUN, 3, ROUNDS)[1]


def swapped_keys() -> Group:
    return changed(3, keys=stranger()[1].keys[1])


def swapped_identity() -> Group:
    identity, table = stranger()
    return changed(3, identity=identity, keys=table.keys[1])


@pytest.mark.parametrize(
    ("made", "reason", "clients"),
    [
        (
            lambda: dataclasses.replace(group(), run="run-2"),
            "the group is of run 'run-2', round 1; this is run 'run-1', round 1",
            (),
        ),
        (
            lambda: group_of(MEMBERS, 4, number=2),
            "the group is of run 'run-1', round 2; this is run 'run-1', round 1",
            (),
        ),
        (
            lambda: dataclasses.replace(group(), work=b"x" * 32),
            "the other members of the group are to train another model, or otherwise: one update "
            "could be read off such a sum",
            (),
        ),
        (
            lambda: dataclasses.replace(group(), members=group().members[:2], threshold=3),
            "the group has 2 members; at least 3 are needed",
            (),
        ),
        (
            lambda: dataclasses.replace(group(), threshold=3),
            "the group's threshold is 3 of 6 members; accepted: at least 3, and more than half",
            (),
        ),
        (
            lambda: dataclasses.replace(group(), threshold=7),
            "the group's threshold is 7 of 6 members; accepted: at least 3, and more than half",
            (),
        ),
        (
            lambda: dataclasses.replace(group(), members=group().members[::-1]),
            "the group's members are not in ascending order, each once",
            (),
        ),
        (
            lambda: changed(3, identity=PEERS[4]),
            "two members of the group have the same identity",
            (),
        ),
        (
            lambda: dataclasses.replace(group_of(range(1, 6), 4)),
            "client 0 is not in the group",
            (),
        ),
        (
            lambda: changed(0, keys=make_table(site(0)[0], RUN, 0, [1])[1].keys[1]),
            "the group holds other keys of this site than it has: they are stale",
            (),
        ),
        (swapped_keys, "the keys of client 3 are not signed by its identity", (3,)),
        (
            swapped_identity,
            "client 3 has another identity than privacy.peers has: somebody may be in the middle",
            (3,),
        ),
        (
            lambda: changed(3, keys=site(3)[2].keys[2]),
            "the keys of client 3 are not signed by its identity",
            (3,),
        ),
        (
            lambda: changed(3, weight=float("nan")),
            "a member of the group weighs nothing, or no number",
            (),
        ),
        (lambda: changed(3, weight=0.0), "a member of the group weighs nothing, or no number", ()),
    ],
)
def test_a_group_that_is_not_as_it_should_be_is_refused(
    made: Callable[[], Group], reason: str, clients: tuple[int, ...]
) -> None:
    with pytest.raises(SecAggError) as refused:
        check(made())
    assert (refused.value.reason, refused.value.clients) == (reason, clients)


def test_a_client_whose_key_is_not_among_the_known_is_refused() -> None:
    with pytest.raises(SecAggError, match=r"privacy\.peers holds no key of client 5"):
        check(group(), {client: PEERS[client] for client in range(5)})


def test_a_pinned_identity_cannot_be_replaced() -> None:
    pinned = check(group(), None)
    with pytest.raises(SecAggError, match="client 3 has another identity than it had before in"):
        check(swapped_identity(), None, pinned=pinned)
    assert check(swapped_identity(), None) != {}  # at first sight nobody can know better


def test_keys_of_another_run_are_not_signed_for_this_one() -> None:
    other = make_table(site(3)[0], "run-2", 3, ROUNDS)[1]
    with pytest.raises(SecAggError, match="the keys of client 3 are not signed by its identity"):
        check(changed(3, keys=other.keys[1]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mask": bytes(32)}, "client 3's keys of round 2 are not signed by its identity"),
        ({"signature": bytes(96)}, "client 3's keys of round 2 are not signed by its identity"),
        (None, "client 3 sent no keys for round 2"),
    ],
)
def test_a_table_that_does_not_serve_the_run_is_refused(
    change: dict[str, bytes] | None, reason: str
) -> None:
    table = site(3)[2]
    check_table(table, RUN, 3, ROUNDS)
    keys = {1: table.keys[1]}
    if change is not None:
        keys[2] = dataclasses.replace(table.keys[2], **change)
    with pytest.raises(SecAggError) as refused:
        check_table(KeyTable(table.identity, keys), RUN, 3, ROUNDS)
    assert (refused.value.reason, refused.value.clients) == (reason, (3,))


def test_a_group_is_not_made_of_a_client_without_keys_for_the_round() -> None:
    tables = {client: site(client)[2] for client in MEMBERS}
    with pytest.raises(SecAggError, match="client 0 sent no keys for round 9"):
        make_group(RUN, 9, 4, tables, dict.fromkeys(tables, 1.0))


def test_bytes_that_are_no_point_of_the_curve_are_no_identity() -> None:
    data = site(3)[2].to_bytes()
    with pytest.raises(SecAggError, match="an identity is no public key of P-384"):
        KeyTable.from_bytes(b"\x09" + data[1:])


def test_a_vector_that_is_no_vector_is_refused() -> None:
    with pytest.raises(SecAggError, match=r"the update has shape \(2, 2\); accepted: up to"):
        mask(site(0)[1][1], 0, group(), np.zeros((2, 2)))


@pytest.fixture(scope="module")
def masked_round() -> Round:
    return Round(group(), vectors_of(MEMBERS)).mask()


def ask(round_: Round, survivors: list[int], client: int = 0, **more: bytes) -> None:
    there = {c: round_.masked[c] for c in survivors if c in round_.masked}
    shares = ciphertexts_for(client, round_.group, there)
    answer(round_.held[client], survivors, {**shares, **{int(k[1:]): v for k, v in more.items()}})


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        ([1, 2, 3, 4, 5], "this site is not among the survivors, though it sent its update"),
        ([0, 1, 2], "3 of 6 members survived; at least 4 are needed"),
        ([0, 1, 2, 2, 2], "the survivors are not members of the group, each once"),
        ([0, 1, 2, 3, 9], "the survivors are not members of the group, each once"),
    ],
)
def test_a_list_of_survivors_that_would_open_too_much_is_refused(
    masked_round: Round, survivors: list[int], reason: str
) -> None:
    with pytest.raises(SecAggError) as refused:
        ask(masked_round, survivors)
    assert refused.value.reason == reason


def test_shares_of_the_lost_are_not_asked_for_with_those_of_the_survivors(
    masked_round: Round,
) -> None:
    late = masked_round.masked[5].ciphertexts[0]
    with pytest.raises(SecAggError, match="the shares that came are not those of the survivors"):
        ask(masked_round, [0, 1, 2, 3, 4], _5=late)
    with pytest.raises(SecAggError, match="the shares that came are not those of the survivors"):
        answer(masked_round.held[0], list(MEMBERS), {})


def other_round() -> bytes:
    """Client 3's shares for client 0 of round 2: a replay."""
    return (
        Round(group_of(MEMBERS, 4, number=2), vectors_of(MEMBERS)).mask().masked[3].ciphertexts[0]
    )


def other_list() -> bytes:
    """Client 3's shares for client 0 when the server has shown 3 another list as long."""
    others = [0, 1, 2, 3, 4, 6]
    return Round(group_of(others, 4), vectors_of(others)).mask().masked[3].ciphertexts[0]


def other_model() -> bytes:
    """Client 3's shares for client 0 when the server has sent 3 another model and group."""
    other = dataclasses.replace(group(), work=b"x" * 32)
    return Round(other, vectors_of(MEMBERS)).mask().masked[3].ciphertexts[0]


def other_threshold() -> bytes:
    return Round(group_of(MEMBERS, 5), vectors_of(MEMBERS)).mask().masked[3].ciphertexts[0]


def longer_list() -> bytes:
    seven = range(7)
    return Round(group_of(seven, 4), vectors_of(seven)).mask().masked[3].ciphertexts[0]


def other_receiver() -> bytes:
    return Round(group(), vectors_of(MEMBERS)).mask().masked[3].ciphertexts[1]


def garbage() -> bytes:
    return bytes(100)


@pytest.mark.parametrize(
    "made",
    [
        *(other_round, other_list, other_model, other_threshold),
        *(longer_list, other_receiver, garbage),
    ],
)
def test_shares_for_another_round_list_or_site_are_refused(
    masked_round: Round, made: Callable[[], bytes]
) -> None:
    with pytest.raises(SecAggError) as refused:
        ask(masked_round, list(MEMBERS), _3=made())
    reason = "the shares of client 3 were not made for this site, round and group"
    assert (refused.value.reason, refused.value.clients) == (reason, (3,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m, ""),
        (lambda m: dataclasses.replace(m, client=4), "shares for others than its neighbours"),
        (lambda m: dataclasses.replace(m, digest=bytes(32)), "of another client, group or round"),
        (
            lambda m: dataclasses.replace(m, vector=m.vector[:-1]),
            "holds 4 numbers instead of 5",
        ),
    ],
)
def test_a_masked_update_that_does_not_fit_its_group_is_refused(
    masked_round: Round, change: Callable[[Masked], Masked], reason: str
) -> None:
    made = masked_round.masked[3]
    if reason.startswith("shares"):
        ciphertexts = {7 if v == 4 else v: c for v, c in made.ciphertexts.items()}
        commitments = {7 if v == 4 else v: c for v, c in made.commitments.items()}
        made = dataclasses.replace(made, ciphertexts=ciphertexts, commitments=commitments)
    else:
        made = change(made)
    if not reason:
        assert read_masked(made.to_bytes(), masked_round.group, 3, 5).client == 3
        return
    with pytest.raises(SecAggError, match=reason) as refused:
        read_masked(made.to_bytes(), masked_round.group, 3, 5)
    assert refused.value.clients == (3,)


def test_an_answer_of_another_round_or_length_is_refused() -> None:
    round_ = Round(group(), vectors_of(MEMBERS)).mask().answer()
    survivors, made = sorted(round_.masked), round_.answers[2].to_bytes()
    with pytest.raises(SecAggError, match="client 3's answer is of another client, group or") as no:
        read_answer(made, round_.group, 3, survivors)
    assert no.value.clients == (3,)
    with pytest.raises(SecAggError, match="client 2: an answer to unmasking has 17 bytes too many"):
        read_answer(made + bytes(17), round_.group, 2, survivors)
    too_large = made[:36] + b"\xff" * 17 + made[53:]
    with pytest.raises(SecAggError, match="client 2: a share is no element of the field"):
        read_answer(too_large, round_.group, 2, survivors)
