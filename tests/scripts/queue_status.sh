curl https://compute-api.sartiq.com/api/v1/monitoring/queues \
  -H "Authorization: Bearer $API_KEY"
