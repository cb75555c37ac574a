curl -X POST https://compute-api.sartiq.com/api/v1/training/ \
-H "Authorization: Bearer $API_KEY" \
-H "Content-Type: application/json" \
-d '{
"dataset_url": "https://storage.sartiq.com/datasets/model-ref.zip",
"base_model": "sd-xl-base",
"output_name": "custom-model-v1",
"config": {
"epochs": 100,
"learning_rate": 1e-4,
"batch_size": 1
}
}'
