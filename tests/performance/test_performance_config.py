"""The configuration grows linearly: in time with many devices, many VMs, and with paths to resolve."""

from __future__ import annotations

import config_scale
import pytest

#: What one device out of ten times as many may cost more. Benchmarks want 1.5 on a quiet machine; a quadratic
#: step would show as 10, and tests run beside others.
MOST_GROWTH = 4.0


@pytest.mark.parametrize(
    ("texts", "sizes"), [(config_scale.one_vm, (100, 1_000)), (config_scale.many_vms, (20, 200))]
)
def test_every_stage_grows_linearly(texts, sizes):
    took = config_scale.time_per_piece(sizes, texts)
    small, large = (took[size] for size in sizes)
    grown = {
        stage: round(after / before, 1)
        for stage, before, after in zip(config_scale.STAGES, small, large, strict=True)
        if after > 2e-6  # below that it is the clock that is measured
    }
    assert "load_config" in grown, f"nothing takes that little: {large}"
    assert max(grown.values()) <= MOST_GROWTH, f"time per piece at {sizes[1]} against {sizes[0]}: {grown}"


def test_ten_thousand_devices_are_loaded(tmp_path):
    files = [tmp_path / "maqet.yaml", tmp_path / "ci.yaml"]
    for file, text in zip(files, config_scale.one_vm(10_000), strict=True):
        file.write_text(text)
    storage = config_scale.load_config(files, environ={}).vms["web"].storage
    assert len(storage) == 10_000
    assert storage[-1].backing_file == tmp_path / "images" / "base9999.qcow2", (
        "paths are relative to the file"
    )
