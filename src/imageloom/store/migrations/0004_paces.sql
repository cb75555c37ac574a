-- The newest trainings of a base model: estimates rest on how fast they went.
create index training_by_base on task ((params->>'base_model'), created_at desc)
    where type = 'training';
