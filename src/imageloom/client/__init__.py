"""The client of the Imageloom API, synchronous and asynchronous.

    from imageloom.client import Client

    with Client("http://127.0.0.1:9000", api_key="…") as client:
        task = client.generate("a red dress, studio light", image="dress.jpg", num_outputs=4)
        for path in task.wait().download("outputs"):
            print(path)
        workflow = client.workflows.create(name="product-to-model", steps=[…])
        workflow.start(image="dress.jpg").wait().download("outputs")
        client.train("pictures", name="my-dress", trigger_word="sks").wait()

`AsyncClient` has the same methods, to be awaited. Every error is an `ImageloomError`; their tree
is drawn in `_errors.py`. It speaks HTTP and imports nothing of the server.
"""

from imageloom.client._async import AsyncClient, AsyncTask
from imageloom.client._dataset import Dataset
from imageloom.client._errors import (
    APIError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Gone,
    ImageloomError,
    InvalidParams,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ServerError,
    TaskCancelled,
    TaskFailed,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    WaitTimeout,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowTimeout,
)
from imageloom.client._monitoring_async import AsyncMonitoring
from imageloom.client._monitoring_sync import Monitoring
from imageloom.client._monitoring_types import Quantiles, Stats, TaskSummary
from imageloom.client._outlook_types import DryRun
from imageloom.client._retry import RetryPolicy
from imageloom.client._sync import Client, Task
from imageloom.client._training_async import AsyncTraining
from imageloom.client._training_sync import Training
from imageloom.client._training_types import (
    Adapter,
    DatasetPicture,
    DatasetProblem,
    Loss,
    Metrics,
    Preflight,
    Sample,
)
from imageloom.client._types import (
    ErrorDetail,
    Eta,
    File,
    Image,
    Model,
    Moments,
    Output,
    Page,
    Preview,
    Queue,
    Reproduction,
    Worker,
)
from imageloom.client._webhook_types import Delivery, DeliveryAttempt, Endpoint
from imageloom.client._webhooks_async import AsyncWebhooks
from imageloom.client._webhooks_sync import Webhooks
from imageloom.client._workflow_types import Candidate, Step, StepTask
from imageloom.client._workflows_async import AsyncWorkflow, AsyncWorkflows
from imageloom.client._workflows_sync import Workflow, Workflows

__all__ = [
    "APIError",
    "Adapter",
    "AsyncClient",
    "AsyncMonitoring",
    "AsyncTask",
    "AsyncTraining",
    "AsyncWebhooks",
    "AsyncWorkflow",
    "AsyncWorkflows",
    "Candidate",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
    "DatasetPicture",
    "DatasetProblem",
    "Delivery",
    "DeliveryAttempt",
    "DryRun",
    "Endpoint",
    "ErrorDetail",
    "Eta",
    "File",
    "Forbidden",
    "Gone",
    "Image",
    "ImageloomError",
    "InvalidParams",
    "Loss",
    "Metrics",
    "Model",
    "Moments",
    "Monitoring",
    "NotFound",
    "Output",
    "Page",
    "PayloadTooLarge",
    "Preflight",
    "Preview",
    "Quantiles",
    "Queue",
    "RateLimited",
    "Reproduction",
    "RetryPolicy",
    "Sample",
    "ServerError",
    "Stats",
    "Step",
    "StepTask",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskSummary",
    "Training",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMediaType",
    "WaitTimeout",
    "Webhooks",
    "Worker",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowPaused",
    "WorkflowTimeout",
    "Workflows",
]
