"""What is simulated: our policy, and others in the same plane under the same load.

Tiered and leveled differ from ours in one decision, which layers of a stripe are merged; images,
files and retention are ours. Neon's behaviour is after its documents and source (docs/pageserver-
compaction.md and config.rs of neondatabase/neon): L0 merged at ten layers, never again; an image of
a partition at three deltas over it; layers that span partitions, without its search for holes.
"""

from collections.abc import Sequence

from engine.compaction_policy import Policy
from tools.compaction_simulator.plane import Stripe

MIB, GIB = 1 << 20, 1 << 30


class Strategy:
    """Ours: engine/compaction_policy.py asked as the compactor asks it."""

    file_bytes = 256 * MIB
    """How large a file with many stripes' layers gets."""
    spans_stripes = False
    """Whether a layer counts for each stripe between its first and its last one."""
    bottom_bytes_min = 0
    """Bytes below the horizon that start a bottommost compaction; 0: there is none."""

    def __init__(self, name: str = "ours", policy: Policy | None = None) -> None:
        self.name = name
        self.policy = policy or Policy()

    def l0_to_merge(self, l0_bytes: Sequence[int]) -> int:
        return self.policy.l0_to_merge(l0_bytes)

    def layers_to_merge(self, newest_first: Sequence[int], incoming: int) -> int:
        return self.policy.layers_to_merge(newest_first, incoming)

    def needs_image(self, stripe: Stripe) -> bool:
        return self.policy.needs_image(
            stripe.debt_bytes, stripe.debt_versions, stripe.image_bytes, stripe.n_blocks
        )

    def wants_own_file(self, stripe_bytes: int) -> bool:
        return self.policy.wants_own_file(stripe_bytes)

    def is_worth_rewriting(self, bytes_live: int, bytes_total: int) -> bool:
        return self.policy.is_worth_rewriting(bytes_live, bytes_total)


class Tiered(Strategy):
    """Four layers of about one size become one of four times the size; else nothing."""

    fan_in = 4

    def __init__(self) -> None:
        super().__init__("tiered")

    def layers_to_merge(self, newest_first: Sequence[int], incoming: int) -> int:
        merged, taken, tier = incoming, 0, incoming
        while incoming:
            alike, count = 0, taken
            while count < len(newest_first) and newest_first[count] < tier * self.fan_in / 2:
                alike += newest_first[count]
                count += 1
            if count - taken + 1 < self.fan_in:
                break
            merged, taken, tier = merged + alike, count, tier * self.fan_in
        return taken


class Leveled(Strategy):
    """A layer a level, each level up to ten times the one above it, as RocksDB's; L0 is merged into
    L1 always, and a level that is full into the next."""

    ratio = 10

    def __init__(self) -> None:
        super().__init__("leveled")

    def layers_to_merge(self, newest_first: Sequence[int], incoming: int) -> int:
        merged, taken, level = incoming, 0, incoming * 2
        for size in newest_first if incoming else ():
            while merged > level:
                level *= self.ratio
            if size > level:
                break
            merged, taken = merged + size, taken + 1
        return taken


class NeonLegacy(Strategy):
    """L0 to L1 at ten layers, once; an image of a partition over which three deltas lie."""

    l0_layers = 10
    image_layers = 3
    file_bytes = 128 * MIB
    spans_stripes = True

    def __init__(self) -> None:
        super().__init__("Neon, images at 3 deltas")

    def l0_to_merge(self, l0_bytes: Sequence[int]) -> int:
        return self.l0_layers if len(l0_bytes) >= self.l0_layers else 0

    def layers_to_merge(self, newest_first: Sequence[int], incoming: int) -> int:
        return 0

    def needs_image(self, stripe: Stripe) -> bool:
        return len(stripe.debt) >= self.image_layers

    def wants_own_file(self, stripe_bytes: int) -> bool:
        return False

    def is_worth_rewriting(self, bytes_live: int, bytes_total: int) -> bool:
        return False


class NeonBottommost(NeonLegacy):
    """No images from the top: all below the horizon is rewritten when it has doubled."""

    bottom_bytes_min = 5 * GIB

    def __init__(self) -> None:
        Strategy.__init__(self, "Neon, gc-compaction")

    def needs_image(self, stripe: Stripe) -> bool:
        return False
