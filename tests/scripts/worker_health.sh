curl https://compute-api.sartiq.com/api/v1/monitoring/workers/health \
  -H "Authorization: Bearer $API_KEY"
