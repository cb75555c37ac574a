import httpx
import time
from pathlib import Path

BASE_URL = "https://compute-api.sartiq.com/api/v1"

def generate_images(
    api_key: str,
    image_url: str,
    prompt: str,
    output_dir: str = "./outputs"
) -> list[str]:
    """Generate images and download results."""
    headers = {"Authorization": f"Bearer {api_key}"}

    # 1. Submit task
    response = httpx.post(
        f"{BASE_URL}/tasks/generation",
        headers=headers,
        json={
            "input_image_url": image_url,
            "prompt": prompt,
            "num_outputs": 4
        }
    )
    task_id = response.json()["id"]
    print(f"Task submitted: {task_id}")

    # 2. Wait for completion
    while True:
        response = httpx.get(
            f"{BASE_URL}/tasks/{task_id}",
            headers=headers
        )
        task = response.json()

        if task["status"] == "completed":
            break
        elif task["status"] == "failed":
            raise Exception(task.get("error"))

        print(f"Progress: {task.get('progress', 0) * 100:.0f}%")
        time.sleep(2)

    # 3. Download images
    output_path = Path(output_dir)
    output_path.mkdir(exist_ok=True)

    downloaded = []
    for i, image in enumerate(task["output"]["images"]):
        img_response = httpx.get(image["url"])
        file_path = output_path / f"output_{i}.jpg"
        file_path.write_bytes(img_response.content)
        downloaded.append(str(file_path))
        print(f"Downloaded: {file_path}")

    return downloaded

# Usage
images = generate_images(
    api_key="your-api-key",
    image_url="https://storage.sartiq.com/products/dress.jpg",
    prompt="fashion model, studio lighting, white background"
)
