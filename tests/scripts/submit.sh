curl -X POST https://compute-api.sartiq.com/api/v1/tasks/generation \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "input_image_url": "https://storage.sartiq.com/products/dress-001.jpg",
    "prompt": "fashion model wearing the dress, studio lighting, white background",
    "negative_prompt": "blurry, distorted, low quality",
    "num_outputs": 4,
    "steps": 30,
    "guidance_scale": 7.5
  }'
