import httpx

response = httpx.post(
    "https://compute-api.sartiq.com/api/v1/tasks/generation",
    headers={"Authorization": f"Bearer {api_key}"},
    json={
        "input_image_url": "https://storage.sartiq.com/products/dress-001.jpg",
        "prompt": "fashion model wearing the dress, studio lighting",
        "num_outputs": 4,
        "steps": 30
    }
)

task = response.json()
print(f"Task ID: {task['id']}")
