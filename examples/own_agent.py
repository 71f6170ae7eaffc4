# examples/own_agent.py
"""An agent of one's own: those who waited longest train, until the loss no longer falls."""

from llm_qfl import Decision, Observation, run


class Waiting:
    """Trains so many clients a round, and stops after a round that gained too little."""

    def __init__(self, most: int = 1, gain: float = 0.0):
        self.most, self.gain = most, gain

    def decide(self, seen: Observation) -> Decision:
        """Decide who trains in the round that is seen."""
        if len(seen.losses) >= 2 and seen.losses[-2] - seen.losses[-1] < self.gain:
            return Decision.to_stop("the last round gained too little")
        longest = sorted(seen.clients, key=lambda view: (-view.rounds_since, view.client))
        steps = {view.client: seen.plain_steps for view in longest[: self.most]}
        return Decision.to_train(steps, f"{len(steps)} that waited longest")


if __name__ == "__main__":
    small = {"train_rows": 80, "test_rows": 40, "server_rows": 40}
    more = {"agent.options": "most=2,gain=-1", "distill.weight": 0, "llm.model": "none"}
    result = run(agent=Waiting, rounds=3, clients=3, data=small, quiet=True, **more)
    print(result.decisions[["round", "client", "trains", "reason"]])
