"""Fitting a drive's coefficients: found again through noise and outliers, kept where nothing is known."""

from __future__ import annotations

import random
from dataclasses import astuple, fields, replace

import pytest

from drivers.virtual.motion import Coefficients, Motion, motion_of
from tapefs.planner.fit import Locate, refit

LTO8 = motion_of(8)
#: A drive unlike CERN's.
TRUTH = Coefficients(1 / 7.5, 3.4, 8.1, 2.2, -4.9, 6.3, 9.5)


def measured(count, noise_s=0.0, outliers=0.0, coefficients=TRUTH, seed=1):
    """Return locates between places of which many share wraps."""
    chance = random.Random(seed)
    truth = Motion(LTO8.generation, coefficients)
    wrap = LTO8.generation.wrap_bytes
    found = []
    for _ in range(count):
        start = chance.randrange(LTO8.generation.capacity_bytes)
        if chance.random() < 0.4:
            target = start - start % wrap + chance.randrange(wrap)
        else:
            target = chance.randrange(LTO8.generation.capacity_bytes)
        seconds = truth.locate_s(start, target) + chance.gauss(0, noise_s)
        if chance.random() < outliers:
            seconds += chance.uniform(20, 120)
        found.append(Locate(start, target, seconds))
    return found


def test_exact_measurements_give_the_coefficients():
    fit = refit(LTO8, measured(4000))
    assert astuple(fit.coefficients) == pytest.approx(astuple(TRUTH), rel=0.02)
    assert fit.error_s < 0.05 < 1 < fit.error_before_s


def test_noise_and_outliers_are_seen_through():
    """3.8 s is the deviation that others found; one locate in twenty takes a minute longer."""
    fit = refit(LTO8, measured(4000, noise_s=3.8, outliers=0.05))
    for field in fields(Coefficients):
        expected = getattr(TRUTH, field.name)
        assert getattr(fit.coefficients, field.name) == pytest.approx(expected, rel=0.2, abs=0.01)
    plain = refit(LTO8, measured(4000, noise_s=3.8))
    assert fit.coefficients.start_s - plain.coefficients.start_s < 0.6


def test_plans_with_the_fitted_model_predict_new_locates():
    fit = refit(LTO8, measured(500, noise_s=1.0, outliers=0.02))
    fitted = Motion(LTO8.generation, fit.coefficients)
    errors = {True: 0.0, False: 0.0}
    for each in measured(500, seed=2):
        errors[True] += abs(fitted.locate_s(each.start_byte, each.target_byte) - each.seconds)
        errors[False] += abs(LTO8.locate_s(each.start_byte, each.target_byte) - each.seconds)
    assert errors[True] < errors[False] / 3


def test_what_nothing_was_measured_of_stays():
    wrap = LTO8.generation.wrap_bytes
    # One band, one direction, one half: nothing about bands, directions, halves and steps back.
    locates = [
        replace(each, start_byte=2 * wrap * (i % 20), target_byte=2 * wrap * (i % 20 + 3) + wrap // 5)
        for i, each in enumerate(measured(60))
    ]
    truth = Motion(LTO8.generation, TRUTH)
    locates = [replace(each, seconds=truth.locate_s(each.start_byte, each.target_byte)) for each in locates]
    found, before = refit(LTO8, locates).coefficients, LTO8.coefficients
    assert found.band_change_s == pytest.approx(before.band_change_s)
    assert found.direction_change_s == pytest.approx(before.direction_change_s)
    assert found.half_change_s == pytest.approx(before.half_change_s)
    assert found.step_back_s == pytest.approx(before.step_back_s)


def test_few_measurements_change_nothing_and_absurd_ones_little():
    assert refit(LTO8, []).coefficients == LTO8.coefficients
    assert refit(LTO8, measured(19)).coefficients == LTO8.coefficients
    for seconds in (0.0, 1e5):
        many = measured(60)
        found = refit(LTO8, [*many[:50], *(replace(each, seconds=seconds) for each in many[50:])]).coefficients
        assert 0 < found.s_per_m < 1
        assert 0 < found.start_s < 10
    resting = [Locate(5, 5, 0.0), Locate(0, 10**8, 0.3)]
    assert refit(LTO8, resting).used == 0
