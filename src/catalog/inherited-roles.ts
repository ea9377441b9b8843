/** Which roles come with those that are held, by the parents of custom roles. */

/**
 * SQL for the array of the roles that `start` selects and all that they inherit. UNION without ALL ends at a cycle, should
 * somebody have written one into the catalog.
 *
 * @param start a SELECT of one text column
 */
export const withInherited = (start: string) => `
  ARRAY(WITH RECURSIVE held (role) AS (
          ${start}
          UNION
          SELECT c.parent FROM held h JOIN nodedb.role c ON c.name = h.role WHERE c.parent IS NOT NULL)
        SELECT held.role FROM held)`;
