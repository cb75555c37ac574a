# Create workflow
curl -X POST https://compute-api.sartiq.com/api/v1/workflows/ \
-H "Authorization: Bearer $API_KEY" \
-H "Content-Type: application/json" \
-d '{
"name": "product-to-model",
"steps": [
{
"name": "generate-base",
"type": "generation",
"config": {
"prompt": "model wearing product",
"num_outputs": 4
}
},
{
"name": "upscale",
"type": "processing",
"config": {
"operation": "upscale",
"scale": 2
},
"depends_on": ["generate-base"]
},
{
"name": "background-removal",
"type": "processing",
"config": {
"operation": "remove-background"
},
"depends_on": ["upscale"]
}
]
}'
