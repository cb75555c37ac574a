curl https://compute-api.sartiq.com/api/v1/training/train_xyz789 \
-H "Authorization: Bearer $API_KEY"
