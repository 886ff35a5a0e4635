"""How MLflow shows a project's runs: the page of model training, with the columns by which runs are told apart.

MLflow takes columns from a view that is kept as a tag of the experiment and named in the address; without one it shows
source, model and data set, and nothing of what came of a run. The workflow is in the address, too, as it would open on
traces of language models otherwise.
"""

from __future__ import annotations

import json

from zk0.tracking import metric_names

_NAME = "zk0"
_RUN_NAME = {"attributes.`Run Name`": 250}  # always shown; by itself too narrow for a name
# Canonical name of a column, as MLflow's pages have it, to its width in pixels.
COLUMNS = {
    f"tags.`{metric_names.IS_CHAMPION}`": 125,
    "metrics.`eval/success_rate_seen`": 185,
    "metrics.`eval/success_rate_unseen`": 200,
    "metrics.`eval/action_error_deg`": 175,
    "metrics.`safety/passed`": 120,
    "params.`federation.strategy`": 150,
    "metrics.`comm/total_bytes_up`": 170,
    "metrics.`comm/total_bytes_down`": 190,
    "metrics.`time/wall_s`": 110,
    f"tags.`{metric_names.PROMOTION_REASONS}`": 400,
}
# The first keeps MLflow from asking what kind of experiment this is.
TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{_NAME}": json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": list(COLUMNS),
            "columnOrder": [*_RUN_NAME, *COLUMNS],
            "columnWidths": {**_RUN_NAME, **COLUMNS},
        }
    ),
}


def runs_page(server: str, experiment: str) -> str:
    """The address of an experiment's runs.

    Args:
        server: Address of an MLflow server.
        experiment: The experiment's id.
    """
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={_NAME}"
