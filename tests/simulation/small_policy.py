"""When a simulated world's layers are merged and materialised: soon, and never a whole stripe."""

from random import Random

from engine.compaction_policy import Policy

WHOLE_STRIPE = 100  # blocks


class SmallPolicy(Policy):
    """The server's does the same after gigabytes."""

    def needs_image(
        self, debt_bytes: int, debt_versions: int, image_bytes: int, n_blocks: int
    ) -> bool:
        """Never of a whole stripe: the pages of one take longer than all else."""
        return n_blocks < WHOLE_STRIPE and super().needs_image(
            debt_bytes, debt_versions, image_bytes, n_blocks
        )


def small_policy(random: Random) -> Policy:
    return SmallPolicy(
        l0_bundles_merged_min=random.choice((1, 2, 2, 3)),
        l0_bundles_merged_max=random.choice((2, 4)),
        layers_max=random.choice((1, 2, 3)),
        debt_per_image_byte=random.choice((0.2, 1.0, 100.0)),
        debt_bytes_min=1,
        debt_versions_per_block=random.choice((2, 4, 10)),
        image_bytes_per_block=1,
        own_file_bytes_min=random.choice((100, 400)),
    )
