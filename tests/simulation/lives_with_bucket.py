"""From the beginning of a simulated world with a bucket to its end."""

from random import Random

from tests.simulation.backed_up import BackedUp


def live_backed_up(world: BackedUp) -> None:
    """Some lives on some machines."""
    random = world.own_random
    for _ in range(random.randint(1, 3)):
        world.run(random.randint(20, 80))
        trouble = random.choice(
            ("kill", "crash", "fault", "power", "stop", *["lose"] * 3, *["take over"] * 4)
        )
        _meet(world, trouble, random)
    world.run(random.randint(20, 60))
    world.settle()
    world.check_all(6)
    if random.random() < 0.5 and world.bucket.has_backup:
        world.lose(lazy=random.random() < 0.5)
        world.settle()
    world.close()


def _meet(world: BackedUp, trouble: str, random: Random) -> None:
    if trouble in ("lose", "take over"):
        if world.bucket.has_backup:
            go_on = world.lose if trouble == "lose" else world.take_over
            go_on(random.random() < 0.5)
        return
    if trouble == "crash":
        world.do_crash_soon()
        world.run(random.randint(1, 20))
    elif trouble == "fault":
        world.do_fault()
        world.run(random.randint(5, 20))
    elif trouble == "stop":
        world.close()
        world.open()
        return
    world.die("" if trouble in ("kill", "fault") else "last")
