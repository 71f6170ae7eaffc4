"""A site's part in secure aggregation: keys once a run, a masked update, one answer a round.

What has to last between messages is small and in Flower's ``context.state``: a message may be
answered by a new process. A site that was restarted has lost it, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Context

from client_app.once import first_time, forget_old
from client_app.outgoing import Outgoing
from core import SettingsError, UserError
from core.messages import Parameters, TrainIns
from core.secure_messages import MOMENTS_ROUND, MOST_KEYS, KeysIns, UnmaskIns, work_digest
from core.summed import Vector, summand

if TYPE_CHECKING:
    from client_app.site import SiteCache
    from core.secagg import Group, RoundPrivate

STATE_KEY = "llm-qfl.secure"


class NoKeysError(UserError):
    """No keys for the round, or others than the server has: a process of the site was lost."""


@dataclass(frozen=True)
class Kept:
    """What a site keeps between messages.

    Attributes
    ----------
    run : str
        The run that it has keys for; one for each of Flower's runs.
    part : str
        Flower's id of the run; a resumed run has another.
    last : int
        Latest round that it has taken part in: no earlier or equal one is answered again. That of
        the moments is 0.
    keys : dict
        Private keys by round, until their round is over.
    round : int
        The round whose masks `held` takes off.
    held : bytes
        What the answer of that round is made of; empty once it was given.
    pinned : dict
        Identities of other sites that were seen in this run, by client.
    """

    run: str = ""
    part: str = ""
    last: int = -1
    keys: dict[int, bytes] = field(default_factory=dict)
    round: int = 0
    held: bytes = b""
    pinned: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context) -> Kept:
        """Read it from Flower's state; new where there is none."""
        record: Mapping[str, Any] = context.state.config_records.get(STATE_KEY, ConfigRecord())
        if not record:
            return cls()
        return cls(
            run=record["run"],
            part=record["part"],
            last=record["last"],
            keys=dict(zip(record["rounds"], record["keys"], strict=True)),
            round=record["round"],
            held=record["held"],
            pinned=dict(zip(record["clients"], record["identities"], strict=True)),
        )

    def keep(self, context: Context) -> None:
        """Write it to Flower's state."""
        context.state[STATE_KEY] = ConfigRecord(
            {
                "run": self.run,
                "part": self.part,
                "last": self.last,
                "rounds": list(self.keys),
                "keys": list(self.keys.values()),
                "round": self.round,
                "held": self.held,
                "clients": list(self.pinned),
                "identities": list(self.pinned.values()),
            }
        )


@dataclass(frozen=True)
class Masking:
    """A checked group, ready for what the site adds to its sum."""

    kept: Kept
    private: RoundPrivate
    client: int
    group: Group

    def masked(self, context: Context, model: Outgoing) -> bytes:
        """Mask a trained model."""
        weight = self.weight * model.weight
        return self.hide(context, summand(model.parameters, model.reference, weight))

    @property
    def weight(self) -> float:
        """What the site weighs in its group."""
        return self.group.weight_of(self.client)

    def hide(self, context: Context, vector: Vector) -> bytes:
        """Mask a vector; what takes its masks off is kept for the answer."""
        from core.secagg import mask

        found, held = mask(self.private, self.client, self.group, vector)
        replace(self.kept, round=self.group.round, held=held.to_bytes()).keep(context)
        return found.to_bytes()


def publish_keys(cache: SiteCache, context: Context, instruction: KeysIns) -> bytes:
    """Make keys for a run's rounds; return the public ones, signed with the site's identity.

    Raises
    ------
    UserError
        If the site has already taken part in one of the rounds, or in another run.
    """
    from core.secagg import identity_of, known_peers, make_table

    kept, first, last = Kept.of(context), instruction.first, instruction.last
    if kept.part != (part := str(context.run_id)):
        kept = Kept(run=instruction.run, part=part)
    if kept.run != instruction.run:  # else a server could have other sites' identities forgotten
        raise UserError(
            f"keys are requested for run {instruction.run!r} in the place of {kept.run!r}",
            "one run, under one name",
            "start another run for it",
        )
    if first <= kept.last or not first <= last < first + MOST_KEYS:
        raise UserError(
            f"keys are requested for rounds {first} to {last} after round {kept.last}",
            f"later rounds, at most {MOST_KEYS} at once",
            "resume the run, or start a new one",
        )
    identity = identity_of(cache.settings, instruction.run, cache.client)
    rounds = range(first, last + 1)
    known = known_peers(cache.settings) is not None
    private, table = make_table(identity, instruction.run, cache.client, rounds, known)
    replace(kept, keys={number: one.to_bytes() for number, one in private.items()}).keep(context)
    forget_old(cache)
    return table.to_bytes()


def begin_masking(
    cache: SiteCache, context: Context, parameters: Parameters, instruction: TrainIns
) -> Masking | None:
    """Check a round's group before anything is trained; None: the update goes out as it is.

    From now on the round counts as used: its keys serve once, whatever becomes of it.

    Raises
    ------
    SettingsError
        If this site's own settings want masks and the server wants none, or the other way round.
    NoKeysError
        If the site has no keys for the round, or others than its group says.
    SecAggError
        If the group is not one that it may add its update to.
    """
    masks = bool(instruction.group)
    check_masks(cache, "an update", masks=masks)
    if not masks:
        return None
    if instruction.round == MOMENTS_ROUND:
        raise _again(MOMENTS_ROUND)
    run, number = instruction.run, instruction.round
    work = work_digest(parameters, instruction)
    return enter_group(cache, context, run, number, instruction.group, work)


def check_masks(cache: SiteCache, what: str, *, masks: bool) -> None:
    """Refuse what is requested otherwise than this site's own settings want it.

    Raises
    ------
    SettingsError
        If it is.
    """
    sets = cache.settings.privacy.secure_aggregation
    if masks != sets:
        raise SettingsError(
            f"{what} {'with' if masks else 'without'} masks is requested",
            f"runs with privacy.secure_aggregation = {str(sets).lower()}, which this node sets",
            "set it alike for the node and the run",
        )


def enter_group(
    cache: SiteCache, context: Context, run: str, number: int, sent: bytes, work: bytes
) -> Masking:
    """Check a round's group, and note that the round is used.

    Parameters
    ----------
    run, number : str and int
        The run and the round.
    sent : bytes
        The group as it came.
    work : bytes
        Digest of what this site was sent to do.

    Raises
    ------
    NoKeysError, SecAggError
        As `begin_masking`.
    """
    from core.secagg import Group, RoundPrivate, check_group, known_peers

    kept = Kept.of(context)
    private = _private(kept, run, number)
    group = Group.from_bytes(sent)
    keys = RoundPrivate.from_bytes(private)
    own = group.member(cache.client).keys
    if (own.mask, own.share) != keys.public:
        raise _no_keys("the group holds other keys of this site than it has for", number)
    seen = check_group(
        group,
        keys,
        cache.client,
        run=run,
        round=number,
        peers=known_peers(cache.settings),
        pinned=kept.pinned,
        work=work,
    )
    _check_settings(group, cache)
    if not first_time(cache, "masked", own.mask):
        raise _again(number)
    left = {later: key for later, key in kept.keys.items() if later > number}
    pinned = {**kept.pinned, **seen}
    kept = replace(kept, pinned=pinned, last=number, held=b"", keys=left)
    kept.keep(context)
    return Masking(kept, keys, cache.client, group)


def _check_settings(group: Group, cache: SiteCache) -> None:
    """Refuse a group that is not as this site's settings want it: threshold, size, weights.

    Raises
    ------
    SecAggError
        If it is one.
    """
    from core.secagg import SecAggError, threshold_of

    privacy, size = cache.settings.privacy, len(group.members)
    least = threshold_of(size, privacy.threshold)
    if group.threshold < least:
        raise SecAggError(
            f"the group's threshold is {group.threshold} of {size}; accepted: at least {least}, by "
            f"this site's privacy.threshold = {privacy.threshold:.3g}"
        )
    if size < privacy.group_size:
        raise SecAggError(
            f"the group has {size} members; accepted: at least privacy.group_size = "
            f"{privacy.group_size} of this site"
        )
    alike = len({member.weight for member in group.members}) == 1
    alike = alike or group.round == MOMENTS_ROUND  # their noise is each site's own
    if privacy.dp == "summed" and privacy.unit == "client" and not alike:
        raise SecAggError(
            "the members' weights differ; accepted: equal ones, for which the noise of the sum is "
            "made (privacy.dp = 'summed')"
        )


def _private(kept: Kept, run: str, number: int) -> bytes:
    """Return the round's private keys; a round is answered once."""
    if kept.run == run and number <= kept.last:
        raise _again(number)
    if kept.run != run or number not in kept.keys:
        raise _no_keys("this site has no keys for", number)
    return kept.keys[number]


def _no_keys(what: str, number: int) -> NoKeysError:
    return NoKeysError(
        f"{what} round {number}",
        "a request for its keys before the round",
        "none: the server requests them before the next round",
    )


def _again(number: int) -> UserError:
    return UserError(
        f"round {number} is requested again",
        "rounds in order, each once: two sums could open a single update",
        "resume the run, or start a new one",
    )


def unmask_answer(cache: SiteCache, context: Context, instruction: UnmaskIns) -> bytes:
    """Answer a round's UNMASK, once.

    Raises
    ------
    UserError
        If it was answered, or the site has nothing to answer with.
    SecAggError
        If the survivors or their shares are not what they must be.
    """
    from core.secagg import Held, answer

    kept = Kept.of(context)
    mine = kept.run == instruction.run and kept.round == instruction.round
    if not mine or not kept.held or not first_time(cache, "answered", kept.held):
        raise UserError(
            f"round {instruction.round} has nothing to be unmasked",
            "one request a round, after the site's masked update",
            "see the log of the server",
        )
    # Whatever comes of it: two answers could open a single update.
    replace(kept, held=b"").keep(context)
    held = Held.from_bytes(kept.held)
    shares = dict(zip(instruction.senders, instruction.shares, strict=True))
    return answer(held, instruction.survivors, shares).to_bytes()
