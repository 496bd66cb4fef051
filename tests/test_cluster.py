"""What a pod does at the cluster's API, played by a small server on loopback."""

from __future__ import annotations

import pytest

from components.cluster import ClusterError, ensure_volume
from tests.cluster_api import Cluster

LOOK, MAKE = ("get", "persistentvolumeclaims"), ("create", "persistentvolumeclaims")


def test_outside_of_a_cluster_nothing_is_asked() -> None:
    assert ensure_volume("kintsugi") == ""


def test_a_missing_volume_claim_is_made_once(pod: Cluster) -> None:
    assert ensure_volume("kintsugi") == "State goes to the volume claim kintsugi, made now with 20Gi."
    assert pod.claims["kintsugi"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert ensure_volume("kintsugi") == "State goes to the volume claim kintsugi."
    assert pod.tokens == {"bearer secret"}


def test_another_run_may_make_it_at_the_same_moment(pod: Cluster) -> None:
    pod.refusals[MAKE] = (409, "it exists")
    assert "made now" in ensure_volume("kintsugi")


def test_who_may_not_make_it_is_told_what_to_do(pod: Cluster) -> None:
    pod.refusals[MAKE] = (403, "no")
    with pytest.raises(ClusterError, match=r"no volume claim 'kintsugi' in namespace team.*name another as run_volume"):
        ensure_volume("kintsugi")


def test_who_may_not_look_goes_on(pod: Cluster) -> None:
    pod.refusals[LOOK] = (403, "no")
    assert "may not look at" in ensure_volume("kintsugi")
    pod.refusals[LOOK] = (500, "broken")
    with pytest.raises(ClusterError, match="does not tell whether"):
        ensure_volume("kintsugi")


def test_a_cluster_that_does_not_answer_is_one_sentence(pod: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(ClusterError, match="the cluster's API does not answer"):
        ensure_volume("kintsugi")


def test_several_nodes_need_a_cluster() -> None:
    with pytest.raises(
        ClusterError, match=r"train_num_nodes = 2 trains on nodes of a Kubernetes cluster.*leave it at 1"
    ):
        ensure_volume("kintsugi", 2)


def test_several_nodes_need_a_volume_that_all_of_them_write_to(pod: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"the claim shared is missing: make one that is ReadWriteMany"):
        ensure_volume("shared", 2)
    assert not pod.claims
    ensure_volume("kintsugi")
    with pytest.raises(ClusterError, match=r"the claim kintsugi is ReadWriteOnce: make one that is ReadWriteMany"):
        ensure_volume("kintsugi", 2)
    pod.claims["kintsugi"]["spec"]["accessModes"] = ["ReadWriteMany"]
    assert ensure_volume("kintsugi", 2) == "State goes to the volume claim kintsugi."
