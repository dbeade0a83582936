-- When the message at the highest sequence of the last look was stored. Another time there is another message: the stream
-- was rolled back, and was given more than it lost before anybody looked again.
ALTER TABLE stream_known ADD COLUMN highest_at timestamptz;
