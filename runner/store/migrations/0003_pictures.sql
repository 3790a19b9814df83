-- Positions of local images in a request, which holds marks of their content, and the path of each, as JSON.
alter table task add column pictures text not null default '';
