# Start workflow
curl -X POST https://compute-api.sartiq.com/api/v1/workflows/{workflow_id}/start \
-H "Authorization: Bearer $API_KEY" \
-H "Content-Type: application/json" \
-d '{
"input": {
"image_url": "https://storage.sartiq.com/products/dress.jpg"
}
}'
