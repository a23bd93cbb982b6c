"""Which images each group takes, and which jobs share a program."""

import types

import pytest

from vitcnn import analyses
from vitcnn.engine.jobs import Job
from vitcnn.engine.schedule import plan_schedule


def job(name, images, repeats=1, least_group=1):
    analysis = types.ModuleType(name)
    analysis.TRAITS = analyses.Traits(least_group=least_group)
    config = analyses.Config(None, images=images, repeats=repeats)
    return Job(name, analysis, config, {})


def places(schedule):
    return [(s.repeat, s.group, s.start, s.stop, dict(s.images_per_job)) for s in schedule]


def test_jobs_of_like_numbers_of_images_share_their_groups():
    assert places(plan_schedule([job("a", 25), job("b", 12)], 10)) == [
        (0, 0, 0, 10, {"a": 10, "b": 10}),
        (0, 1, 10, 20, {"a": 10, "b": 2}),
        (0, 2, 20, 25, {"a": 5}),
    ]


def test_jobs_of_few_images_have_slices_of_their_own():
    jobs = [job("all", 80), job("few", 10), job("fewer", 4), job("also few", 10)]
    schedule = plan_schedule(jobs, 8)
    assert places(schedule)[:3] == [
        (0, 0, 0, 4, {"fewer": 4}),
        (0, 0, 0, 8, {"few": 8, "also few": 8}),
        (0, 1, 8, 10, {"few": 2, "also few": 2}),
    ]
    assert places(schedule)[3:] == [(0, k, 8 * k, 8 * k + 8, {"all": 8}) for k in range(10)]
    assert len({s.shape for s in schedule}) == 4  # one program for "all", not two


def test_every_job_measures_each_of_its_images_once():
    jobs = [job("a", 100, 2), job("b", 12, 3), job("c", 40), job("d", 3)]
    for group in (1, 7, 12, 100):
        for repeat in range(3):
            schedule = [s for s in plan_schedule(jobs, group) if s.repeat == repeat]
            for one in jobs:
                measured = [
                    i
                    for s in schedule
                    for i in range(s.start, s.start + dict(s.images_per_job).get(one.name, 0))
                ]
                assert measured == (list(range(one.images)) if repeat < one.repeats else [])
                groups = [s.group for s in schedule if one.name in dict(s.images_per_job)]
                assert groups == sorted(set(groups))


def test_a_small_tail_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="a: the last 3 of 23 images are left out"):
        schedule = plan_schedule([job("a", 23, least_group=4)], 10)
    assert [s.stop for s in schedule] == [10, 20]
