import time
import httpx

def wait_for_task(task_id: str, api_key: str, timeout: int = 300) -> dict:
    """Poll until task completes or timeout."""
    base_url = "https://compute-api.sartiq.com/api/v1"
    headers = {"Authorization": f"Bearer {api_key}"}
    start = time.time()

    while time.time() - start < timeout:
        response = httpx.get(
            f"{base_url}/tasks/{task_id}",
            headers=headers
        )
        task = response.json()

        if task["status"] == "completed":
            return task
        elif task["status"] == "failed":
            raise Exception(f"Task failed: {task.get('error')}")
        elif task["status"] == "cancelled":
            raise Exception("Task was cancelled")

        # Progress update
        print(f"Progress: {task.get('progress', 0) * 100:.0f}%")
        time.sleep(2)

    raise TimeoutError("Task timed out")

# Usage
task = wait_for_task("task_abc123", api_key)
for image in task["output"]["images"]:
    print(image["url"])
