curl -X POST https://compute-api.sartiq.com/api/v1/tasks/task_abc123/cancel \
  -H "Authorization: Bearer $API_KEY"
