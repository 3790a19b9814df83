-- Drafts that are added in pages while the first ones are bought: their digest, empty where none are; and how many there
-- will be, 0 where all are in.
alter table job add column adding text not null default '';
alter table job add column planned integer not null default 0;
