response = httpx.get(
    f"{base_url}/tasks/{task_id}",
    headers=headers
)
task = response.json()

if task["status"] == "failed":
    error = task.get("error", "Unknown error")

    if "CUDA out of memory" in error:
        # Retry with smaller batch or different worker
        print("GPU memory issue - retrying...")
    elif "Invalid input" in error:
        # Fix input and resubmit
        print(f"Input error: {error}")
    else:
        # Log and alert
        print(f"Task failed: {error}")
