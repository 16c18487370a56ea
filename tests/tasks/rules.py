"""Rules of plans for the tests of tasks."""

import pbt


def all_change(member, view, rng):
    """The worst member copies the best and the others change their values, so that every lineage has several."""
    if member.id == view.ranking[-1].id:
        return pbt.Copy(donor=view.ranking[0].id, why="worst")
    return pbt.Mutate(why="not worst")
