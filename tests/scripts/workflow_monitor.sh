curl https://compute-api.sartiq.com/api/v1/workflows/{workflow_id} \
-H "Authorization: Bearer $API_KEY"
